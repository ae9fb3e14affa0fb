"""The families of text-to-image pipelines that are known, and what differs between them that their files do not tell.

Source: the pipelines of diffusers, each with the img2img pipeline that AutoPipelineForImage2Image finds for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.errors import SourceError

ARMADA_GUIDANCE = 7.5


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `encoded` are the arguments of the pipeline that its `encode_prompt` gives, in order; "" is none.

    `over` paints over a picture with the same parts, made with `options`; None where diffusers has nothing that does.
    `denoiser` and `autoencoder` are the names of those parts. A `packed` latent is a sequence of squares of 2 x 2.
    `step` is how many numbers of a latent a picture's edges are multiples of; None: as the denoiser's patches tell.
    `half` is the number type of 16 bits that its weights were made for. `guidance`, `edge` (pixels) and `window`
    (tokens) are used where they are not chosen; None: the pipeline's own. `is_signed`: its pictures as tensors lie
    between -1 and 1. `names_shape` is whether a recipe names the latent's shape.
    """

    encoded: tuple[str, ...]
    over: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    denoiser: str = "transformer"
    autoencoder: str = "vae"
    packed: bool = False
    step: int | None = None
    half: str = "bfloat16"
    guidance: float | None = None
    edge: int | None = None
    window: int | None = None
    is_signed: bool = False
    names_shape: bool = True


_PAIR = ("prompt_embeds", "negative_prompt_embeds")
_POOLED = (*_PAIR, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
_PIXART = Family(_MASKED, half="float16")

FAMILIES: Mapping[str, Family] = {
    "StableDiffusionPipeline": Family(
        _PAIR,
        over="StableDiffusionImg2ImgPipeline",
        options={"safety_checker": None, "requires_safety_checker": False},  # the first painting was looked at already
        denoiser="unet",
        half="float16",
        guidance=ARMADA_GUIDANCE,
        names_shape=False,
    ),
    "StableDiffusionXLPipeline": Family(
        _POOLED,
        over="StableDiffusionXLImg2ImgPipeline",
        denoiser="unet",
        half="float16",
        guidance=ARMADA_GUIDANCE,
        names_shape=False,
    ),
    "StableDiffusion3Pipeline": Family(_POOLED, over="StableDiffusion3Img2ImgPipeline", half="float16"),
    # Its pipeline has 1024 pixels written into it. The ids of the text's positions are made anew from its length.
    "FluxPipeline": Family(
        ("prompt_embeds", "pooled_prompt_embeds", ""), over="FluxImg2ImgPipeline", packed=True, edge=1024
    ),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "SanaPipeline": Family(_MASKED),
    # Its pipeline has 128 tokens and 64 pixels written into it.
    "Kandinsky3Pipeline": Family(
        (*_PAIR, "attention_mask", "negative_attention_mask"),
        denoiser="unet",
        autoencoder="movq",
        step=8,
        half="float16",
        window=128,
        is_signed=True,
    ),
}
# What AutoPipelineForText2Image takes, and this cannot: why.
_UNUSABLE = {
    **dict.fromkeys(
        ("KandinskyPipeline", "KandinskyV22Pipeline", "KandinskyCombinedPipeline", "KandinskyV22CombinedPipeline"),
        "its prompts go through a prior, a pipeline of its own; Kandinsky 3 can be used",
    ),
    "IFPipeline": "it paints pixels, and has no latents",
    "StableCascadeCombinedPipeline": "it paints in two pipelines, one after the other",
    "WuerstchenCombinedPipeline": "it paints in two pipelines, one after the other",
}


def find_family(model: str, name: str | None) -> Family:
    """The family of the pipeline class `name`. Raises SourceError, which names `model`, for any that is not known."""
    if name is not None and name in FAMILIES:
        return FAMILIES[name]
    why = f": {_UNUSABLE[name]}" if name in _UNUSABLE else ""
    known = ", ".join(FAMILIES)
    if name is None:
        raise SourceError(f"{model} is no pipeline of diffusers: its model_index.json names no class")
    raise SourceError(f"{model} is a {name}{why}; the pipelines that can be used here are {known}")
