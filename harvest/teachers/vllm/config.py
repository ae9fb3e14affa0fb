"""What a user says about a model that vLLM runs here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harvest.chat.prompts import Draw
from harvest.rendering import Layout
from shared.errors import UsageError

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


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """A model that vLLM runs in a process of this machine, and what is asked of it.

    `model` is a hub id, a path or pkg://. `draw` says what is shown as pictures, of `size` (width, height) pixels.
    `vector` asks for the hidden state in place of an answer: vLLM gives one or the other. `max_tokens` is by default 1
    for a task with labels, whose distribution needs no more, else 512. `keep_topk` keeps the natural log-probabilities
    of the `top_logprobs` (20) most probable tokens at each position of the reply. `engine` are further arguments of
    `vllm.LLM`. `patience` is how many seconds of silence mean that the engine hangs.

    Raises UsageError where a value cannot be meant.
    """

    model: str
    draw: Draw = Draw.FIELDS
    size: tuple[int, int] = (512, 512)
    vector: Vector | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    keep_topk: bool = False
    top_logprobs: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    patience: float = 600.0

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("no model was named; give --model")
        for name in ("max_tokens", "top_logprobs", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {value}")
        if not self.temperature >= 0:
            raise UsageError(f"--temperature must not be negative, not {self.temperature}")
        if self.vector is not None and (self.keep_topk or self.max_tokens is not None):
            raise UsageError("--vector gives no reply: --max-tokens and --keep-topk belong to a run without it")
        if self.top_logprobs is not None and not self.keep_topk:
            raise UsageError("--top-logprobs is of use with --keep-topk only: label scores are exact without it")
        for name, instead in _OWN_OPTIONS.items():
            if name in self.engine:
                raise UsageError(f"--engine {name} is not taken: use {instead}")

    @property
    def topk(self) -> int | None:
        """How many tokens are kept at each position of the reply, None for none."""
        return (self.top_logprobs or DEFAULT_TOPK) if self.keep_topk else None

    @property
    def layout(self) -> Layout | None:
        """The pages that are drawn, None where all is sent as text."""
        return None if self.draw is Draw.NONE else Layout(*self.size)

    def describe_engine(self) -> Mapping[str, Any]:
        """The engine's options that change answers: for the recipe."""
        return {name: value for name, value in self.engine.items() if name not in _SPEED_OPTIONS}
