"""The scores that a model gives to texts it is given, token by token."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from harvest.teachers.given_rows import LEAST, Given, Scores
from harvest.teachers.transformers.model import LocalModel, pad_left


def score_given(model: LocalModel, rows: Sequence[Given], topk: int) -> list[Scores]:
    """Score rows together, as one batch: equal to scoring each alone, but for rounding."""
    import torch

    said = max(len(row.scored) for row in rows)
    inputs = {name: one.to(model.device) for name, one in pad_left([[*r.prompt, *r.scored] for r in rows]).items()}
    with model.watch_memory(len(rows)), torch.inference_mode():
        logits = model.forward(None, **inputs, **model.number(inputs["attention_mask"]), logits_to_keep=said + 1).logits
        # The logits before the last position foretell what is scored; those of padding are left out at once.
        kept = [logits[number, -len(row.scored) - 1 : -1] for number, row in enumerate(rows)]
        tokens = [torch.tensor(row.scored, device=logits.device) for row in rows]
        return [_read_scores(one.float(), scored, topk) for one, scored in zip(kept, tokens, strict=True)]


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
