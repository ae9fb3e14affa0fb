"""What a user says about a pipeline that paints, whatever it paints."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from shared.errors import UsageError
from shared.options import Option, check_options, parse_size, show_size


class LongPrompts(StrEnum):
    """What becomes of a prompt that is longer than the text encoder's window (77 tokens of Stable Diffusion)."""

    CHUNK = "chunk"  # encoded in several windows, side by side
    REFUSE = "refuse"  # a failed row that says how long it is


@dataclass(frozen=True, slots=True)
class PaintingConfig:
    """A pipeline of diffusers, and how it paints. A teacher's own class adds what only it has, the vectors first.

    Raises UsageError where a value cannot be meant.
    """

    model: Annotated[str, Option("The pipeline: a hub id, a folder, or pkg://module/path.")]
    encoder: Annotated[str | None, Option("The vision encoder of --vector encoder.")] = None
    steps: Annotated[int | None, Option("Denoising steps. Unless given, the pipeline's own.", at_least=1)] = None
    guidance: Annotated[
        float | None,
        Option(
            "Guidance scale; 1 or less: none, where the model is not made for one. Unless given, the pipeline's own."
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
    batch: Annotated[int, Option("How many are painted at a time: memory for speed.", at_least=1)] = 8
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Option(
            "What the model computes in; auto is float32, and on a GPU the 16 bits that the model was made for: "
            "float16 for Stable Diffusion, PixArt and Kandinsky, say, bfloat16 for Flux, Sana and Wan."
        ),
    ] = "auto"
    keep_images: Annotated[bool, Option("Keep what is painted beside the shards: PNG, clips as animated WebP.")] = False

    def __post_init__(self) -> None:
        check_options(self)
        if self.size is not None and any(edge % 8 for edge in self.size):
            raise UsageError(f"--size {self.size[0]}x{self.size[1]}: width and height must be multiples of 8")

    def check_encoder(self, is_asked: bool) -> None:
        """Raise UsageError unless --encoder stands where `is_asked`, that is, where --vector encoder does."""
        if is_asked != (self.encoder is not None):
            raise UsageError("--vector encoder and --encoder NAME, a vision encoder, go together")
