"""The families of text-to-video pipelines that are known.

Source: the pipelines of diffusers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harvest.teachers.painting.families import MASKED, PAIR, Family


@dataclass(frozen=True, slots=True)
class ClipFamily(Family):
    """A family of pipelines that make a clip: frames, one after the other.

    Their latents, as a pipeline's callback sees them, are of shape (rows, channels, frames, height, width); where
    `frames_first`, of (rows, frames, channels, height, width); where `packed`, a sequence of patches. `longest` is the
    name under which the denoiser's files say of how many frames its clips are at most, None where nothing does;
    `is_strict` where it can make no longer ones, rather than was not taught to. `asked` are arguments of the pipeline
    that its authors advise in place of its own. `size` is width and height in pixels where only the pipeline's
    constructor names them.
    """

    frames_first: bool = False
    packed: bool = False
    longest: str | None = None
    is_strict: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None


CLIP_FAMILIES: Mapping[str, ClipFamily] = {
    # Its motion modules have a table of positions.
    "AnimateDiffPipeline": ClipFamily(
        PAIR, denoiser="unet", half="float16", longest="motion_max_seq_length", is_strict=True
    ),
    "TextToVideoSDPipeline": ClipFamily(PAIR, denoiser="unet", half="float16"),
    "CogVideoXPipeline": ClipFamily(PAIR, frames_first=True, longest="sample_frames"),
    # Autoencoders that are told how much noise to expect (from 0.9.1 on) want a little.
    "LTXPipeline": ClipFamily(MASKED, packed=True, asked={"decode_timestep": 0.05, "decode_noise_scale": 0.025}),
    "WanPipeline": ClipFamily(PAIR, exact=("vae",)),
    "MochiPipeline": ClipFamily(MASKED, size=(848, 480)),
}
# What makes clips of texts, or might be taken for that, and cannot be used: why.
UNUSABLE_CLIPS = {
    "AllegroPipeline": "its autoencoder decodes in tiles only",
    "LattePipeline": "it cuts a prompt differently alone and in a batch",
    "StableVideoDiffusionPipeline": "it moves a picture, and reads no text",
}
