"""What a user says about a text-to-image model."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from shared.errors import UsageError
from shared.options import Option, check_options, parse_size, show_size

# Of the recipe of ARMADA's code (arXiv:2603.10877): the picture is shrunk, and painted over again.
EDGE = 128  # pixels
STRENGTH = 0.75  # the share of the steps that the second painting takes


class DiffusionVector(StrEnum):
    """What of a painting is the teacher's vector h_t."""

    ARMADA = "armada"  # the latent of the picture at 128x128, painted over with strength .75: of SD 4x16x16 = 1024
    LATENT = "latent"  # the final latent, flattened: of SD 4x64x64 = 16,384 for a picture of 512x512
    ENCODER = "encoder"  # a frozen vision encoder's vector of the picture


class LongPrompts(StrEnum):
    """What becomes of a prompt that is longer than the text encoder's window (77 tokens of Stable Diffusion)."""

    CHUNK = "chunk"  # encoded in several windows, side by side
    REFUSE = "refuse"  # a failed row that says how long it is


@dataclass(frozen=True, slots=True)
class DiffusionConfig:
    """A text-to-image pipeline (see families), and what is made of it. The defaults are those of ARMADA.

    Raises UsageError where a value cannot be meant.
    """

    model: Annotated[str, Option("The pipeline: a hub id, a folder, or pkg://module/path.")] = (
        "CompVis/stable-diffusion-v1-4"
    )
    lora: Annotated[
        str | None,
        Option("A LoRA on top of the model: a hub id, or a folder that holds pytorch_lora_weights.safetensors."),
    ] = None
    vector: Annotated[
        DiffusionVector,
        Option(
            "What of a painting is the vector. armada: the latent of the picture shrunk to 128x128 and painted over; "
            "latent: the final latent; encoder: a vision encoder's vector of the picture."
        ),
    ] = DiffusionVector.ARMADA
    encoder: Annotated[str | None, Option("The vision encoder of --vector encoder.")] = None
    steps: Annotated[int, Option("Denoising steps.", at_least=1)] = 20
    guidance: Annotated[
        float | None,
        Option(
            "Guidance scale; 1 or less: none, where the model is not made for one. Unless given, ARMADA's 7.5 for "
            "Stable Diffusion and SDXL, and any other pipeline's own."
        ),
    ] = None
    size: Annotated[
        tuple[int, int] | None,
        Option(
            "Size of the picture, WIDTHxHEIGHT in pixels. Unless given, the model's own.",
            at_least=8,
            metavar="WxH",
            parse=parse_size,
            show=show_size,
        ),
    ] = None
    long_prompts: Annotated[
        LongPrompts,
        Option("Prompts past the text encoder's window: chunk encodes them in several windows, refuse fails them."),
    ] = LongPrompts.CHUNK
    batch: Annotated[int, Option("Pictures painted at a time: memory for speed.", at_least=1)] = 8
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Option("What the model computes in; auto is float32, and on a GPU float16, or bfloat16 for Flux and Sana."),
    ] = "auto"
    keep_images: Annotated[bool, Option("Keep the pictures beside the shards.")] = False

    def __post_init__(self) -> None:
        check_options(self)
        if self.size is not None and any(edge % 8 for edge in self.size):
            raise UsageError(f"--size {self.size[0]}x{self.size[1]}: width and height must be multiples of 8")
        if (self.vector is DiffusionVector.ENCODER) != (self.encoder is not None):
            raise UsageError("--vector encoder and --encoder NAME, a vision encoder, go together")
        if self.vector is DiffusionVector.ARMADA and int(self.steps * STRENGTH) < 1:
            raise UsageError(
                f"--vector armada paints over with {STRENGTH} of the steps: give --steps 2 or more, or --vector latent"
            )
