"""What a user says about a text-to-image model."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from shared.errors import UsageError

# Of the recipe of ARMADA's code (arXiv:2603.10877): the picture is shrunk, and painted over again.
EDGE = 128  # pixels
STRENGTH = 0.75  # the share of the steps that the second painting takes


class DiffusionVector(StrEnum):
    """What of a painting is the teacher's vector h_t."""

    ARMADA = "armada"  # 1024: the 4x16x16 latent of the picture at 128x128, painted over with strength .75
    LATENT = "latent"  # the final latent, flattened: 4x64x64 = 16,384 for a picture of 512x512
    ENCODER = "encoder"  # a frozen vision encoder's vector of the picture


class LongPrompts(StrEnum):
    """What becomes of a prompt that is longer than the text encoder's window (77 tokens)."""

    CHUNK = "chunk"  # encoded in several windows, side by side
    REFUSE = "refuse"  # a failed row that says how long it is


@dataclass(frozen=True, slots=True)
class DiffusionConfig:
    """A Stable Diffusion or SDXL pipeline, and what is made of it.

    `model` is a hub id, a path or pkg://, and `lora` a folder or hub id that holds pytorch_lora_weights.safetensors.
    `encoder` is the vision encoder of `vector` "encoder". `guidance` is the classifier-free guidance scale; 1 or less
    is none. `size` (width, height) in pixels is the picture's, None the model's own. `batch` is how many are painted
    at a time: it changes the speed, and what memory is taken. `dtype` "auto" is float16 on a GPU, float32 elsewhere.
    `keep_images` writes the pictures beside the shards. The defaults are those of ARMADA.

    Raises UsageError where a value cannot be meant.
    """

    model: str = "CompVis/stable-diffusion-v1-4"
    lora: str | None = None
    vector: DiffusionVector = DiffusionVector.ARMADA
    encoder: str | None = None
    steps: int = 20
    guidance: float = 7.5
    size: tuple[int, int] | None = None
    long_prompts: LongPrompts = LongPrompts.CHUNK
    batch: int = 8
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    keep_images: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be 1 or more, not {getattr(self, name)}")
        if self.size is not None and (min(self.size) < 8 or any(edge % 8 for edge in self.size)):
            raise UsageError(f"--size {self.size[0]}x{self.size[1]}: width and height must be multiples of 8")
        if (self.vector is DiffusionVector.ENCODER) != (self.encoder is not None):
            raise UsageError("--vector encoder and --encoder NAME, a vision encoder, go together")
        if self.vector is DiffusionVector.ARMADA and int(self.steps * STRENGTH) < 1:
            raise UsageError(
                f"--vector armada paints over with {STRENGTH} of the steps: give --steps 2 or more, or --vector latent"
            )
