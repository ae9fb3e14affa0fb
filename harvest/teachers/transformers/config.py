"""What a user says about a model that transformers runs in this process."""

from dataclasses import dataclass
from typing import Annotated

from harvest.chat.prompts import Draw
from harvest.teachers.local_config import HiddenPosition, LocalConfig
from harvest.teachers.transformers.quantization import Quantization
from shared.errors import UsageError
from shared.options import Option
from shared.suggestions import suggest

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class TransformersConfig(LocalConfig):
    """A model of transformers in this process. Raises UsageError where a value cannot be meant."""

    model: Annotated[str, Option("The model: a hub id, a folder, a GGUF file, or pkg://module/path of one of these.")]
    draw: Annotated[
        Draw | None,
        Option(
            "What is shown as pictures: fields (the text), all (the question, too), none. Unless given, fields for a "
            "model that sees pictures, else none."
        ),
    ] = None
    vector: Annotated[
        HiddenPosition | None,
        Option("Beside the answer, the hidden state of the prompt: that of its last position, or the mean of all."),
    ] = None
    layer: Annotated[
        int | None,
        Option("The layer of --vector, 0 the embeddings. Unless given, the last, after the final norm.", at_least=0),
    ] = None
    device: Annotated[str | None, Option("cpu, cuda, cuda:1, mps, ... Unless given, a GPU where there is one.")] = None
    dtype: Annotated[
        str | None,
        Option(f"Of the weights: {', '.join(DTYPES)}. Unless given, bfloat16 where the device has it, else float32."),
    ] = None
    quantize: Annotated[
        Quantization | None,
        Option("Round the weights while they load, so that they take less memory, and answers change a little."),
    ] = None
    batch_tokens: Annotated[
        int | None,
        Option(
            "Tokens computed at a time, those of pictures estimated. Unless given, 1024 on a CPU and 8192 on a GPU.",
            at_least=1,
        ),
    ] = None

    def __post_init__(self) -> None:
        LocalConfig.__post_init__(self)  # super() finds no class of slots: the decorator makes it anew
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype}: {suggest(self.dtype, DTYPES, there='there are')}")
        if self.layer is not None and self.vector is None:
            raise UsageError("--layer is that of --vector: add --vector last or --vector mean")
