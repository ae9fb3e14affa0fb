"""A causal language model that is frozen: its tokenizer, its prompts as token ids, and the scores of given tokens."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from shared.errors import SourceError
from shared.frozen_models import FrozenModel, choose_inference_device
from shared.templates import Rendered

_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}  # as Linux names them: with these bfloat16 is faster than float32
_MARK = "\N{SNOWMAN}"  # stands for an answer where the end of a turn is looked for
LEAST = -100.0  # of a log-probability, of the tail too: as good as none

Array: TypeAlias = np.ndarray[Any, Any]


class Given(NamedTuple):
    """Token ids: of what stands before, at least one, and of what is scored, the end token included."""

    prompt: Sequence[int]
    scored: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.scored)


class Scores(NamedTuple):
    """Natural log-probabilities of n given tokens: `given` and `tail` of shape (n,), `ids` and `logprobs` of (n, K).

    `tail` is of all tokens beside those K together.
    """

    given: Array
    ids: Array
    logprobs: Array
    tail: Array


class ScoringModel:
    """The model that `source` names. The tokenizer and the weights load when they are first needed."""

    def __init__(self, source: str, device: str | None, dtype: str | None) -> None:
        self.files = FrozenModel(source)
        self._source, self._device, self._dtype = source, device, dtype
        self._model: Any = None

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer. Raises SourceError where there is none."""
        from transformers import AutoTokenizer

        return self.files.load(AutoTokenizer)

    @cached_property
    def device(self) -> str:
        """The device that it computes on."""
        return self._device or choose_inference_device()

    @property
    def dtype(self) -> str:
        """The name of the type of its weights."""
        return self._dtype or ("bfloat16" if self.device.startswith("cuda") or _has_bfloat16() else "float32")

    @cached_property
    def context(self) -> int:
        """The most tokens that it takes, prompt and answer together."""
        config = self.files.read_json("config.json") or {}
        return int(config.get("max_position_embeddings") or config.get("n_positions") or 1 << 30)

    @cached_property
    def start(self) -> int:
        """The token before a text that continues nothing: the first of a text, or where there is none the last."""
        tokenizer = self.tokenizer
        found = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if found is None:
            raise SourceError(f"the tokenizer of {self._source} has no token that begins or ends a text")
        return int(found)

    @cached_property
    def end_of_text(self) -> int:
        """The token that ends a text."""
        if self.tokenizer.eos_token_id is None:
            raise SourceError(f"the tokenizer of {self._source} has no token that ends a text: give --no-score-end")
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def end_of_turn(self) -> int:
        """The token by which the chat template ends an answer; the end of a text where it writes none."""
        said = self._spell([{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}], False)
        after = said.rpartition(_MARK)[2]
        ids = self.tokenizer(after, add_special_tokens=False).input_ids if after else []
        return int(ids[0]) if ids and ids[0] in self.tokenizer.all_special_ids else self.end_of_text

    def encode(self, text: str) -> list[int]:
        """The token ids of `text` alone: nothing is put before or after it."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def encode_prompt(self, prompt: Rendered) -> list[int]:
        """The token ids of a prompt: messages in the tokenizer's chat template, which writes its own special tokens.

        Raises SourceError for messages where the tokenizer has no chat template.
        """
        if prompt.messages is None:
            return self.encode(prompt.text or "") or [self.start]
        if not self.tokenizer.chat_template:
            raise SourceError(
                f"{self._source} has no chat template: give --template alpaca, lm-eval or a file of your own"
            )
        return self.encode(self._spell([message._asdict() for message in prompt.messages], True))

    def _spell(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        )

    def score(self, rows: Sequence[Given], topk: int) -> list[Scores]:
        """Score rows together, as one batch: equal to scoring each alone, but for rounding.

        The head is computed in float32, whatever the type of the other weights: rounded to 16 bits, logits of 20 would
        be off by .06.
        """
        import torch

        model = self._load()
        most, said = max(map(len, rows)), max(len(row.scored) for row in rows)
        ids = torch.zeros((len(rows), most), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):  # padded on the left: what is scored ends where the batch does
            ids[number, most - len(row) :] = torch.tensor([*row.prompt, *row.scored])
            mask[number, most - len(row) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        with torch.inference_mode():
            inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            logits = model(**inputs, use_cache=False, logits_to_keep=said + 1).logits
            # The logits before the last position foretell what is scored; those of padding are left out at once.
            kept = [logits[number, -len(row.scored) - 1 : -1] for number, row in enumerate(rows)]
            tokens = [torch.tensor(row.scored, device=logits.device) for row in rows]
            return [_read_scores(one.float(), scored, topk) for one, scored in zip(kept, tokens, strict=True)]

    def close(self) -> None:
        """Let go of the weights."""
        self._model = None

    def _load(self) -> Any:
        if self._model is None:
            import torch
            from transformers import AutoModelForCausalLM

            model = self.files.load(AutoModelForCausalLM, dtype=getattr(torch, self.dtype))
            _widen_head(model)
            self._model = model.to(self.device).eval()
        return self._model


def _read_scores(logits: Any, scored: Any, topk: int) -> Scores:
    """The scores of one row: `logits` float32 of shape (n, V), `scored` the n tokens."""
    total = logits.logsumexp(-1, keepdim=True)
    top = logits.topk(min(topk, logits.shape[-1]), dim=-1)
    given = logits.gather(-1, scored[:, None]) - total
    # From what is beside them, and not from what they lack to 1: that would be lost in rounding where they have nearly
    # all.
    rest = logits.scatter(-1, top.indices, float("-inf")).logsumexp(-1, keepdim=True) - total
    return Scores(
        given[:, 0].clamp(min=LEAST, max=0).cpu().numpy(),
        top.indices.cpu().numpy().astype(np.int32),
        (top.values - total).clamp(min=LEAST, max=0).cpu().numpy(),
        rest[:, 0].clamp(min=LEAST, max=0).cpu().numpy(),
    )


def _widen_head(model: Any) -> None:
    """Give `model` a head of its own in float32, and hidden states to match."""
    import torch

    head = model.get_output_embeddings()
    if head is None or head.weight.dtype == torch.float32:
        return
    wide = torch.nn.Linear(head.in_features, head.out_features, head.bias is not None, dtype=torch.float32)
    wide.load_state_dict(head.state_dict())
    wide.register_forward_pre_hook(_widen_input)
    model.set_output_embeddings(wide)


def _widen_input(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.float() for one in inputs)


def _has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in _CPU_FLAGS)
