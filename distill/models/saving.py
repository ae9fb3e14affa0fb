"""A generative student as a folder that transformers, vLLM, lm-eval and llama.cpp's converter open.

They want a full model: weights, config, generation config, tokenizer and chat template. So an adapter is merged into
its base model, in float32, and kept beside it.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from distill.models.adapters import is_adapter, merge_adapter, unwrap, write_adapter
from shared.frozen_models import quiet_transformers

STUDENT, ADAPTER = "student", "adapter"


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a merged model is from the model with its adapter: over `tokens` positions, the largest difference of a
    logit, and the share whose most likely token is another.
    """

    tokens: int
    logit: float
    other_token: float

    def __str__(self) -> str:
        return (
            f"merged, no logit of {self.tokens:,} tokens moved by more than {self.logit:.1e}, and "
            f"{self.other_token:.2%} have another most likely token"
        )


def save_generator(
    model: Any, tokenizer: Any, folder: Path, rows: Sequence[Sequence[int]] = (), ends: Sequence[int] = ()
) -> Drift | None:
    """Write a causal student to `folder`/student, in float32, with its tokenizer, chat template and generation config.

    An adapter goes to `folder`/adapter, and is merged into `model` for good; given token ids of a few `rows`, the drift
    that this makes is measured. `ends` are the token ids that end a reply, beside those of the model's generation
    config and the tokenizer's end token.
    """
    drift, base = None, unwrap(model)
    if base is not model:
        write_adapter(model, folder / ADAPTER)
        model.eval().float()
        before = [_compute_logits(model, row) for row in rows]
        base = merge_adapter(model)
        if rows:
            drift = _measure(before, [_compute_logits(base, row) for row in rows])
    base.config.use_cache = True  # it trains without; without it every reader would write slowly
    base.generation_config = _make_generation_config(base, tokenizer, ends)
    with quiet_transformers():
        base.float().save_pretrained(folder / STUDENT)
        tokenizer.save_pretrained(folder / STUDENT)
    return drift


def is_generator(folder: Path) -> bool:
    """Tell whether a folder holds a causal language model, as save_generator writes one and its config.json says.

    A folder with an adapter is a classifier: save_generator merges those of causal models.
    """
    if is_adapter(str(folder)):
        return False
    try:
        architectures = json.loads((folder / "config.json").read_text()).get("architectures") or ()
    except (OSError, ValueError):
        return False
    return any("CausalLM" in name or "LMHead" in name for name in architectures)


def _make_generation_config(model: Any, tokenizer: Any, ends: Sequence[int]) -> GenerationConfig:
    """Give the model's own generation config with all the tokens that end a reply, or a bare one if it is not valid."""
    config: GenerationConfig = copy.deepcopy(model.generation_config)
    known = config.eos_token_id
    every = [known] if isinstance(known, int) else list(known or ())
    every += [*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]
    config.eos_token_id = list(dict.fromkeys(every)) or None
    config.pad_token_id = tokenizer.pad_token_id if config.pad_token_id is None else config.pad_token_id
    try:
        with quiet_transformers():
            config.validate(strict=True)
    except ValueError:  # a temperature without sampling, say, which transformers loads and then refuses to save
        return GenerationConfig(
            eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, bos_token_id=config.bos_token_id
        )
    return config


@torch.inference_mode()
def _compute_logits(model: Any, row: Sequence[int]) -> Tensor:
    """Compute the logits of one row of token ids, float32 (tokens, vocabulary), on the CPU."""
    device = next(model.parameters()).device
    logits: Tensor = model(input_ids=torch.tensor([list(row)], device=device)).logits[0]
    return logits.float().cpu()


def _measure(before: Sequence[Tensor], after: Sequence[Tensor]) -> Drift:
    pairs = list(zip(before, after, strict=True))
    tokens = sum(len(one) for one, _ in pairs)
    other = sum(int((one.argmax(dim=1) != two.argmax(dim=1)).sum()) for one, two in pairs)
    return Drift(tokens, max(float((one - two).abs().max()) for one, two in pairs), other / tokens)
