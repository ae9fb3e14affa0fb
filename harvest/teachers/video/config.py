"""What a user says about a text-to-video model."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from harvest.teachers.painting.config import PaintingConfig
from shared.options import Option

# Of ARMADA's paper (arXiv:2603.10877): 64 frames, and a vector of 262,144 = 512 x 512 numbers of the first. Which, it
# does not say. That they are the frame's grey values is our reading.
FRAMES, EDGE = 64, 512


class VideoVector(StrEnum):
    """What of a clip is the teacher's vector h_t."""

    FIRST_FRAME = "first-frame"  # the first frame, grey, at 512x512: 262,144 numbers from -1 to 1, row by row
    LATENT = "latent"  # the final latent, whole: channels x frames x height x width
    LATENT_MEAN = "latent-mean"  # its mean over time: channels x height x width
    ENCODER = "encoder"  # the mean over all frames of a frozen vision encoder's vectors


@dataclass(frozen=True, slots=True)
class VideoConfig(PaintingConfig):
    """A text-to-video pipeline, and what is made of its clips. Raises UsageError where a value cannot be meant."""

    batch: Annotated[int, Option("How many are painted at a time: memory for speed.", at_least=1)] = 1
    vector: Annotated[
        VideoVector,
        Option(
            "What of a clip is the vector. first-frame: the first frame, grey, at 512x512; latent: the final latent, "
            "whole; latent-mean: its mean over time; encoder: the mean of a vision encoder's vectors of the frames."
        ),
    ] = VideoVector.FIRST_FRAME
    frames: Annotated[
        int | None,
        Option(
            f"Frames of a clip. Unless given, {FRAMES}, as ARMADA's, or the nearest number that the model makes.",
            at_least=1,
        ),
    ] = None
    motion_adapter: Annotated[
        str | None,
        Option("AnimateDiff: a motion adapter, a hub id or a folder, that makes clips with Stable Diffusion."),
    ] = None

    def __post_init__(self) -> None:
        PaintingConfig.__post_init__(self)  # super() finds no class of slots: the decorator makes it anew
        self.check_encoder(self.vector is VideoVector.ENCODER)
