"""A language or vision-language model of transformers, frozen, and what it computes of a batch of prompts."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harvest.teachers.memory import explain_memory
from harvest.teachers.transformers.quantization import Quantization
from shared.errors import UsageError
from shared.frozen_models import FrozenModel, check_device

_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}  # as Linux names them: with these bfloat16 is faster than float32
_LAST_LAYER = "last, after the final norm"


@dataclass(frozen=True, slots=True)
class Prefill:
    """A batch of prompts, computed. Rows are padded on the left: what follows a prompt stands right behind it.

    `inputs` are what the model took, and `mask` (B, P) says which positions are no padding. `logits` (B, V), float32,
    foretell the token that follows; `vectors` (B, d), float32, are the hidden states that were wished for, else None.
    `cache` keeps the prompts' keys and values.
    """

    inputs: Mapping[str, Any]
    mask: Any
    logits: Any
    vectors: Any
    cache: Any

    @property
    def lengths(self) -> Any:
        """How many tokens each prompt has, (B,)."""
        return self.mask.sum(1)


class LocalModel:
    """The model that `source` names. The weights load when they are first needed."""

    def __init__(
        self, source: str, device: str | None, dtype: str | None, quantization: Quantization | None = None
    ) -> None:
        self.files = FrozenModel(source)
        self._name, self._device, self._dtype, self._quantization = source, device, dtype, quantization
        self._model: Any = None

    @cached_property
    def device(self) -> str:
        """The device that it computes on. Raises UsageError where that cannot be."""
        if self._device is not None:
            check_device(self._device, "cpu, cuda, cuda:0 or mps")
        return self._device or _choose_device()

    @property
    def dtype(self) -> str:
        """The name of the type of its weights."""
        return self._dtype or ("bfloat16" if self.device.startswith("cuda") or self._has_bfloat16 else "float32")

    @property
    def _has_bfloat16(self) -> bool:
        return self.device == "cpu" and _cpu_has_bfloat16()

    @cached_property
    def sees_pictures(self) -> bool:
        """Whether its architecture takes pictures. Reads its config; loads nothing."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        return self._config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    @cached_property
    def context(self) -> int:
        """The most tokens that it takes, prompt and answer together."""
        config = self._text_config
        return int(config.get("max_position_embeddings") or config.get("n_positions") or 1 << 30)

    @cached_property
    def width(self) -> int:
        """The dimensions of its hidden states, 768 where its config names none. Good for estimates."""
        config = self._text_config
        return int(config.get("hidden_size") or config.get("n_embd") or 768)

    @cached_property
    def generation(self) -> Mapping[str, Any]:
        """How its makers would have it write: generation_config.json."""
        return self.files.read_json("generation_config.json") or {}

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that its makers say end a reply."""
        found = self.generation.get("eos_token_id", self._config.get("eos_token_id"))
        return frozenset(found if isinstance(found, list) else [] if found is None else [found])

    @cached_property
    def _config(self) -> Mapping[str, Any]:
        return self.files.read_json("config.json") or {}

    @property
    def _text_config(self) -> Mapping[str, Any]:
        """The config of what reads text, which a model that sees has a part of its own for."""
        return {**self._config, **(self._config.get("text_config") or {})}

    def describe_layer(self, layer: int | None) -> str | int:
        """The layer of a vector, as a recipe says it. Raises UsageError where the model has none of that number."""
        config = self._text_config
        count = config.get("num_hidden_layers") or config.get("n_layer")
        if layer is not None and count is not None and layer > count:
            raise UsageError(f"--layer {layer}: {self._name} has the layers 0 (embeddings) to {count}")
        return _LAST_LAYER if layer is None or layer == count else layer

    @property
    def network(self) -> Any:
        """The model itself, on its device."""
        if self._model is None:
            import torch
            from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

            loader = AutoModelForImageTextToText if self.sees_pictures else AutoModelForCausalLM
            with self.watch_memory():
                options: Mapping[str, Any] = {}
                if self._quantization is not None:
                    options = self._quantization.make_options(self.device, self.dtype)
                model = self.files.load(loader, dtype=getattr(torch, self.dtype), **options)
                _widen_head(model)
                self._model = (model if options else model.to(self.device)).eval()  # laid there by what rounds them
        return self._model

    @property
    def shares_prompts(self) -> bool:
        """Whether many continuations of a prompt can be computed at once, each seeing the prompt and itself only.

        So they can where every layer attends to all that came before, and rotates by positions that are given it.
        """
        config = self.network.config.get_text_config()
        layers = set(getattr(config, "layer_types", None) or ["full_attention"])
        rotates = getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None)
        is_whole = layers == {"full_attention"} and not getattr(config, "sliding_window", None)
        return bool(rotates) and is_whole and not self._has_own_positions

    @property
    def _has_own_positions(self) -> bool:
        """Whether its positions are more than a count of tokens: Qwen-VL's have height and width."""
        config = self.network.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        return "mrope_section" in rope

    def prefill(self, inputs: Mapping[str, Any], vector: str | None = None, layer: int | None = None) -> Prefill:
        """Compute prompts, padded on the left: `inputs` as the model's processor makes them.

        `vector`, "last" or "mean", asks for hidden states of `layer`, None the last.
        """
        import torch
        from transformers import DynamicCache

        network = self.network
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        for name, tensor in inputs.items():
            if tensor.is_floating_point():
                inputs[name] = tensor.to(network.dtype)
        mask = inputs["attention_mask"]
        cache = DynamicCache(config=network.config.get_text_config())
        output = self.forward(
            cache, **inputs, **self.number(mask), logits_to_keep=1, output_hidden_states=vector is not None
        )
        vectors = None
        if vector is not None:
            hidden = output.hidden_states[-1 if layer is None else layer].float()
            kept = mask[:, :, None].to(hidden.dtype)
            vectors = hidden[:, -1] if vector == "last" else (hidden * kept).sum(1) / kept.sum(1)
        return Prefill(inputs, mask.to(torch.long), output.logits[:, -1].float(), vectors, cache)

    def forward(self, cache: Any, **inputs: Any) -> Any:
        """One pass of the model; `cache` keeps keys and values, None for none."""
        network = self.network
        parameters = inspect.signature(network.forward).parameters
        name = "cache" if "cache" in parameters else "past_key_values"  # in versions before 5.20
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            inputs = {key: value for key, value in inputs.items() if key in parameters}  # some count for themselves
        return network(**inputs, **({} if cache is None else {name: cache}), use_cache=cache is not None)

    def number(self, mask: Any) -> Mapping[str, Any]:
        """The positions of the tokens behind padding, where the model does not count them by rules of its own."""
        return {} if self._has_own_positions else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}

    def follow(self, cache: Any, mask: Any, tokens: Any) -> Any:
        """The logits (B, V), float32, that follow `tokens` (B,), said after all of `mask` (B, T), which counts them."""
        numbered = {name: positions[:, -1:] for name, positions in self.number(mask).items()}
        output = self.forward(cache, input_ids=tokens[:, None], attention_mask=mask, **numbered)
        return output.logits[:, -1].float()

    @contextmanager
    def watch_memory(self, rows: int | None = None) -> Iterator[None]:
        """Turn too little memory in the block into a TeacherError that says what to lower; `rows` computed at once."""
        ways = ["--batch-tokens 1" if rows is None else "a smaller --batch-tokens"] if rows != 1 else []
        ways += ["a smaller --size"] if self.sees_pictures else []
        ways += ["--dtype bfloat16"] if self.dtype == "float32" else []
        ways += ["--quantize bitsandbytes-4bit"] if self._quantization is None else []
        what = f"load {self._name}" if rows is None else f"compute {rows} rows at a time with {self._name}"
        with explain_memory(what, [*ways, "a smaller --model"] if rows is None else ways):
            yield

    def close(self) -> None:
        """Let go of the weights."""
        self._model = None


def _choose_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _widen_head(model: Any) -> None:
    """Give `model` a head of its own in float32, and hidden states to match.

    Rounded to 16 bits, logits of 20 would be off by .06.
    """
    import torch

    head = model.get_output_embeddings()
    if head is None or type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32:
        return
    wide = torch.nn.Linear(
        head.in_features, head.out_features, head.bias is not None, device=head.weight.device, dtype=torch.float32
    )
    wide.load_state_dict(head.state_dict())
    wide.register_forward_pre_hook(_widen_input)
    model.set_output_embeddings(wide)


def _widen_input(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.float() for one in inputs)


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in _CPU_FLAGS)


def pad_left(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Token ids of rows as tensors (B, P), with the mask of what is no padding."""
    import torch

    most = max(map(len, rows))
    ids = torch.zeros((len(rows), most), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, most - len(row) :] = torch.tensor(list(row))
        mask[number, most - len(row) :] = 1
    return {"input_ids": ids, "attention_mask": mask}
