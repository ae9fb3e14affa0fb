"""What a user says about a model that vLLM runs here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from harvest.chat.label_trie import ScoringOption
from harvest.chat.prompts import Draw
from harvest.rendering import Layout
from harvest.teachers.given import EndOption, GivenOption
from harvest.teachers.pages import PAGE_SIZE, KeepOption
from shared.errors import UsageError
from shared.options import Option, check_json, check_options, parse_assignments

DEFAULT_TOPK = 20  # as many as vLLM gives unless its limit is raised
# Options of the engine that have their own place, and those that change how fast it answers but not what.
_OWN_OPTIONS = {
    "model": "--model",
    "revision": "--model NAME@REVISION",
    "tokenizer_revision": "--model NAME@REVISION",
    "runner": "--vector",
    "convert": "--vector",
    "pooler_config": "--vector",
}
_SPEED_OPTIONS = frozenset(
    {
        "async_scheduling",
        "compilation_config",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "load_format",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "mm_encoder_tp_mode",
        "mm_processor_cache_gb",
        "pipeline_parallel_size",
        "tensor_parallel_size",
    }
)


class Vector(StrEnum):
    """Which positions of the last hidden layer, after the final norm, make the teacher's vector h_t."""

    LAST = "last"  # the last of the prompt: the one from which the first token of the answer is predicted
    MEAN = "mean"  # the mean over all positions of the prompt, pictures included


def parse_engine(texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE texts, `-` as `_` in a name. Raises ValueError that says what to give."""
    try:
        return {name.replace("-", "_"): value for name, value in parse_assignments(texts).items()}
    except ValueError as error:
        raise ValueError(f"{error}: tensor_parallel_size=2") from None


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """A model that vLLM runs in a process of this machine, and what is asked of it.

    Raises UsageError where a value cannot be meant.
    """

    model: Annotated[str, Option("The model: a hub id, a folder, or pkg://module/path.")]
    draw: Annotated[Draw, Option("What is shown as pictures: fields (the text), all (the question, too), none.")] = (
        Draw.FIELDS
    )
    size: Annotated[tuple[int, int], PAGE_SIZE] = (512, 512)
    scoring: ScoringOption = None
    pictures: Annotated[bool, Option("Show the pictures that the rows have of their own.")] = True
    keep_images: KeepOption = False
    vector: Annotated[
        Vector | None,
        Option(
            "Instead of an answer, the hidden state of the prompt: that of its last position, or the mean of all. vLLM "
            "gives the one or the other."
        ),
    ] = None
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
            "How a row becomes a prompt, with --draw none: chat, alpaca, lm-eval, llm-adapters, none, or a YAML file "
            "of your own. Unless given, chat with --score-given, else the question and the row below it."
        ),
    ] = None
    engine: Annotated[
        Mapping[str, Any],
        Option(
            "An argument of vllm.LLM, NAME=VALUE; may be repeated.",
            parse=parse_engine,
            repeated=True,
            metavar="NAME=VALUE",
        ),
    ] = field(default_factory=dict)
    patience: Annotated[float, Option("Seconds of silence that mean that the engine hangs.", above=0)] = 600.0

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("no model was named; give --model")
        check_options(self)
        if self.vector is not None and (self.keep_topk or self.max_tokens is not None or self.scoring is not None):
            raise UsageError("--vector gives no reply: --max-tokens, --keep-topk and --scoring belong to a run without")
        if self.top_logprobs is not None and not self.keep_topk and self.score_given is None:
            raise UsageError(
                "--top-logprobs is of use with --keep-topk or --score-given only: label scores are exact without it"
            )
        self._check_given()
        for name, instead in _OWN_OPTIONS.items():
            if name in self.engine:
                raise UsageError(f"--engine {name} is not taken: use {instead}")
        check_json(self.describe_engine(), "--engine")

    def _check_given(self) -> None:
        """Refuse what does not go with given texts, or with a template: nothing is drawn, and nothing is said."""
        if self.draw is not Draw.NONE and (self.score_given is not None or self.template is not None):
            option = "--template" if self.score_given is None else "--score-given"
            raise UsageError(f"{option} shows the row as text, and no picture: add --draw none")
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

    @property
    def layout(self) -> Layout | None:
        """The pages that are drawn, None where all is sent as text."""
        return None if self.draw is Draw.NONE else Layout(*self.size)

    def describe_engine(self) -> Mapping[str, Any]:
        """The engine's options that change answers: for the recipe."""
        return {name: value for name, value in self.engine.items() if name not in _SPEED_OPTIONS}
