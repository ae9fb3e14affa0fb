"""What a user says about a text-to-image model."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from harvest.teachers.painting.config import PaintingConfig
from shared.errors import UsageError
from shared.options import Option

# Of the recipe of ARMADA's code (arXiv:2603.10877): the picture is shrunk, and painted over again.
EDGE = 128  # pixels
STRENGTH = 0.75  # the share of the steps that the second painting takes


class DiffusionVector(StrEnum):
    """What of a painting is the teacher's vector h_t."""

    ARMADA = "armada"  # the latent of the picture at 128x128, painted over with strength .75: of SD 4x16x16 = 1024
    LATENT = "latent"  # the final latent, flattened: of SD 4x64x64 = 16,384 for a picture of 512x512
    ENCODER = "encoder"  # a frozen vision encoder's vector of the picture


@dataclass(frozen=True, slots=True)
class DiffusionConfig(PaintingConfig):
    """A text-to-image pipeline, and what is made of it. The defaults are those of ARMADA.

    Raises UsageError where a value cannot be meant.
    """

    model: Annotated[str, Option("The pipeline: a hub id, a folder, or pkg://module/path.")] = (
        "CompVis/stable-diffusion-v1-4"
    )
    steps: Annotated[int, Option("Denoising steps.", at_least=1)] = 20
    guidance: Annotated[
        float | None,
        Option(
            "Guidance scale; 1 or less: none, where the model is not made for one. Unless given, ARMADA's 7.5 for "
            "Stable Diffusion and SDXL, and any other pipeline's own."
        ),
    ] = None
    vector: Annotated[
        DiffusionVector,
        Option(
            "What of a painting is the vector. armada: the latent of the picture shrunk to 128x128 and painted over; "
            "latent: the final latent; encoder: a vision encoder's vector of the picture."
        ),
    ] = DiffusionVector.ARMADA
    lora: Annotated[
        str | None,
        Option("A LoRA on top of the model: a hub id, or a folder that holds pytorch_lora_weights.safetensors."),
    ] = None

    def __post_init__(self) -> None:
        PaintingConfig.__post_init__(self)  # super() finds no class of slots: the decorator makes it anew
        self.check_encoder(self.vector is DiffusionVector.ENCODER)
        if self.vector is DiffusionVector.ARMADA and int(self.steps * STRENGTH) < 1:
            raise UsageError(
                f"--vector armada paints over with {STRENGTH} of the steps: give --steps 2 or more, or --vector latent"
            )
