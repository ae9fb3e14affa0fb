"""The families of text-to-image pipelines that are known.

Source: the pipelines of diffusers, each with the img2img pipeline that AutoPipelineForImage2Image finds for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harvest.teachers.painting.families import MASKED, PAIR, POOLED, Family

ARMADA_GUIDANCE = 7.5


@dataclass(frozen=True, slots=True)
class PictureFamily(Family):
    """A family of pipelines that paint a picture.

    `over` paints over a picture with the same parts, made with `options`; None where diffusers has nothing that does.
    A `packed` latent is a sequence of squares of 2 x 2. `step` is how many numbers of a latent a picture's edges are
    multiples of; None: as the denoiser's patches tell. `edge` (pixels) is used where no size is chosen; None: the
    pipeline's own. `is_signed`: its pictures as tensors lie between -1 and 1. `names_shape` is whether a recipe names
    the latent's shape.
    """

    over: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    packed: bool = False
    step: int | None = None
    edge: int | None = None
    is_signed: bool = False
    names_shape: bool = True


_PIXART = PictureFamily(MASKED, half="float16")

PICTURE_FAMILIES: Mapping[str, PictureFamily] = {
    "StableDiffusionPipeline": PictureFamily(
        PAIR,
        over="StableDiffusionImg2ImgPipeline",
        options={"safety_checker": None, "requires_safety_checker": False},  # the first painting was looked at already
        denoiser="unet",
        half="float16",
        guidance=ARMADA_GUIDANCE,
        names_shape=False,
    ),
    "StableDiffusionXLPipeline": PictureFamily(
        POOLED,
        over="StableDiffusionXLImg2ImgPipeline",
        denoiser="unet",
        half="float16",
        guidance=ARMADA_GUIDANCE,
        names_shape=False,
    ),
    "StableDiffusion3Pipeline": PictureFamily(POOLED, over="StableDiffusion3Img2ImgPipeline", half="float16"),
    # Its pipeline has 1024 pixels written into it. The ids of the text's positions are made anew from its length.
    "FluxPipeline": PictureFamily(
        ("prompt_embeds", "pooled_prompt_embeds", ""), over="FluxImg2ImgPipeline", packed=True, edge=1024
    ),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "SanaPipeline": PictureFamily(MASKED),
    # Its pipeline has 128 tokens and 64 pixels written into it.
    "Kandinsky3Pipeline": PictureFamily(
        (*PAIR, "attention_mask", "negative_attention_mask"),
        denoiser="unet",
        autoencoder="movq",
        step=8,
        half="float16",
        window=128,
        is_signed=True,
    ),
}
# What AutoPipelineForText2Image takes, and this cannot: why.
UNUSABLE_PICTURES = {
    **dict.fromkeys(
        ("KandinskyPipeline", "KandinskyV22Pipeline", "KandinskyCombinedPipeline", "KandinskyV22CombinedPipeline"),
        "its prompts go through a prior, a pipeline of its own; Kandinsky 3 can be used",
    ),
    "IFPipeline": "it paints pixels, and has no latents",
    "StableCascadeCombinedPipeline": "it paints in two pipelines, one after the other",
    "WuerstchenCombinedPipeline": "it paints in two pipelines, one after the other",
}
