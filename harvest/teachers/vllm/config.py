"""What a user says about a model that vLLM runs here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from harvest.chat.prompts import Draw
from harvest.rendering import Layout
from harvest.teachers.local_config import HiddenPosition, LocalConfig
from shared.errors import UsageError
from shared.options import Option, check_json, parse_assignments

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


def parse_engine(texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE texts, `-` as `_` in a name. Raises ValueError that says what to give."""
    try:
        return {name.replace("-", "_"): value for name, value in parse_assignments(texts).items()}
    except ValueError as error:
        raise ValueError(f"{error}: tensor_parallel_size=2") from None


@dataclass(frozen=True, slots=True)
class VllmConfig(LocalConfig):
    """A model that vLLM runs in a process of this machine. Raises UsageError where a value cannot be meant."""

    draw: Annotated[Draw, Option("What is shown as pictures: fields (the text), all (the question, too), none.")] = (
        Draw.FIELDS
    )
    vector: Annotated[
        HiddenPosition | None,
        Option(
            "Instead of an answer, the hidden state of the prompt: that of its last position, or the mean of all. vLLM "
            "gives the one or the other."
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
        LocalConfig.__post_init__(self)  # super() finds no class of slots: the decorator makes it anew
        if self.vector is not None and (self.keep_topk or self.max_tokens is not None or self.scoring is not None):
            raise UsageError("--vector gives no reply: --max-tokens, --keep-topk and --scoring belong to a run without")
        for name, instead in _OWN_OPTIONS.items():
            if name in self.engine:
                raise UsageError(f"--engine {name} is not taken: use {instead}")
        check_json(self.describe_engine(), "--engine")

    @property
    def layout(self) -> Layout | None:
        """The pages that are drawn, None where all is sent as text."""
        return self.make_layout(self.draw)

    def describe_engine(self) -> Mapping[str, Any]:
        """The engine's options that change answers: for the recipe."""
        return {name: value for name, value in self.engine.items() if name not in _SPEED_OPTIONS}
