"""What a user says about a model that runs on this machine, whichever engine runs it: vLLM, or transformers."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from harvest.chat.label_trie import ScoringOption
from harvest.chat.prompts import Draw
from harvest.rendering import Layout
from harvest.teachers.given import EndOption, GivenOption
from harvest.teachers.pages import PAGE_SIZE, KeepOption
from shared.errors import UsageError
from shared.options import Option, check_options

DEFAULT_TOPK = 20  # as many as vLLM gives unless its limit is raised


class HiddenPosition(StrEnum):
    """Which positions of a hidden layer make the teacher's vector h_t."""

    LAST = "last"  # the last of the prompt: the one from which the first token of the answer is predicted
    MEAN = "mean"  # the mean over all positions of the prompt, pictures included


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """A model on this machine, what is asked of it, and what is kept.

    An engine's own class adds what only it has, and says what `draw` is unless given, and what `vector` gives. Raises
    UsageError where a value cannot be meant.
    """

    model: Annotated[str, Option("The model: a hub id, a folder, or pkg://module/path.")]
    draw: Draw | None = None
    size: Annotated[tuple[int, int], PAGE_SIZE] = (512, 512)
    pictures: Annotated[bool, Option("Show the pictures that the rows have of their own.")] = True
    keep_images: KeepOption = False
    scoring: ScoringOption = None
    vector: HiddenPosition | None = None
    max_tokens: Annotated[
        int | None,
        Option(
            "Longest reply, in tokens. Unless given, 1 for a task with labels, whose distribution needs no more, else "
            "512.",
            at_least=1,
        ),
    ] = None
    temperature: Annotated[float, Option("Sampling temperature.", at_least=0)] = 0.0
    top_p: Annotated[
        float | None,
        Option("Sample from the most probable tokens that make up this probability.", above=0, at_most=1),
    ] = None
    keep_topk: Annotated[
        bool, Option("Keep the log-probabilities of the most probable tokens at each position of the reply.")
    ] = False
    top_logprobs: Annotated[
        int | None,
        Option(f"How many --keep-topk, or --score-given, keeps; {DEFAULT_TOPK} unless given.", at_least=1),
    ] = None
    score_given: GivenOption = None
    score_end: EndOption = True
    template: Annotated[
        str | None,
        Option(
            "How a row becomes a prompt, where nothing is drawn (--draw none): chat, alpaca, lm-eval, llm-adapters, "
            "none, or a YAML file of your own. Unless given, chat with --score-given, else the question and the row "
            "below it."
        ),
    ] = None

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("no model was named; give --model")
        check_options(self)
        if self.top_logprobs is not None and not self.keep_topk and self.score_given is None:
            raise UsageError(
                "--top-logprobs is of use with --keep-topk or --score-given only: label scores are exact without it"
            )
        self._check_given()

    def _check_given(self) -> None:
        """Refuse what does not go with given texts, or with a template: nothing is drawn, and nothing is said."""
        if self.draw not in (None, Draw.NONE) and (self.score_given is not None or self.template is not None):
            option = "--template" if self.score_given is None else "--score-given"
            raise UsageError(f"{option} shows the row as text, and no picture: give --draw none")
        if self.score_given is None:
            if not self.score_end:
                raise UsageError("--no-score-end is of use with --score-given only")
            return
        if not self.score_given:
            raise UsageError("--score-given is empty: give reference, text or a teacher=<name> folder")
        said = {
            "--vector": self.vector is not None,
            "--scoring": self.scoring is not None,
            "--max-tokens": self.max_tokens is not None,
            "--temperature": self.temperature > 0,
            "--top-p": self.top_p is not None,
            "--keep-topk": self.keep_topk,
        }
        if wrong := [name for name, is_given in said.items() if is_given]:
            raise UsageError(f"{wrong[0]} is of no use with --score-given: the model writes nothing then")

    @property
    def topk(self) -> int | None:
        """How many tokens are kept at each position of the reply, None for none."""
        keeps = self.keep_topk or self.score_given is not None
        return (self.top_logprobs or DEFAULT_TOPK) if keeps else None

    def make_layout(self, draw: Draw) -> Layout | None:
        """The pages that are drawn, None where all is sent as text."""
        return None if draw is Draw.NONE else Layout(*self.size)
