"""What a user says about a language model that scores texts."""

from dataclasses import dataclass
from typing import Annotated

from harvest.teachers.given import REFERENCE, EndOption, GivenOption
from shared.errors import UsageError
from shared.options import Option, check_options
from shared.suggestions import suggest

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class ScorerConfig:
    """A causal language model of transformers, what it scores, and what is kept of that.

    Raises UsageError where a value cannot be meant.
    """

    model: Annotated[str, Option("The model: a hub id, a folder, a GGUF file, or pkg://module/path of one of these.")]
    score_given: GivenOption = REFERENCE
    template: Annotated[
        str,
        Option("How a row becomes a prompt: chat, alpaca, lm-eval, llm-adapters, none, or a YAML file of your own."),
    ] = "chat"
    top_logprobs: Annotated[
        int, Option("How many of the most probable tokens are kept at each position.", at_least=1)
    ] = 20
    score_end: EndOption = True
    device: Annotated[str | None, Option("cpu, cuda, cuda:1, ... Unless given, a GPU where there is one.")] = None
    dtype: Annotated[
        str | None,
        Option(f"Of the weights: {', '.join(DTYPES)}. Unless given, bfloat16 where the device has it, else float32."),
    ] = None
    batch_tokens: Annotated[
        int | None,
        Option("Tokens computed at a time. Unless given, 1024 on a CPU and 8192 on a GPU.", at_least=1),
    ] = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype}: {suggest(self.dtype, DTYPES, there='there are')}")
        if not self.score_given:
            raise UsageError("--score-given is empty: give reference, text or a teacher=<name> folder")
        check_options(self)
