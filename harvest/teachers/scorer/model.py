"""A causal language model that is frozen, and the scores that it gives to tokens."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harvest.teachers.given_rows import LEAST, Given, Scores
from shared.frozen_models import FrozenModel, choose_inference_device

_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}  # as Linux names them: with these bfloat16 is faster than float32


class ScoringModel:
    """The model that `source` names. The weights load when they are first needed."""

    def __init__(self, source: str, device: str | None, dtype: str | None) -> None:
        self.files = FrozenModel(source)
        self._device, self._dtype = device, dtype
        self._model: Any = None

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

    def score(self, rows: Sequence[Given], topk: int) -> list[Scores]:
        """Score rows together, as one batch: equal to scoring each alone, but for rounding.

        The head is computed in float32, whatever the type of the other weights: rounded to 16 bits, logits of 20 would
        be off by .06.
        """
        import torch

        model = self._load()
        most, said = max(row.tokens for row in rows), max(len(row.scored) for row in rows)
        ids = torch.zeros((len(rows), most), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):  # padded on the left: what is scored ends where the batch does
            ids[number, most - row.tokens :] = torch.tensor([*row.prompt, *row.scored])
            mask[number, most - row.tokens :] = 1
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
