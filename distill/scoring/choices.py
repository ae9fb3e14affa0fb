"""How likely a causal student finds each choice of a row, as lm-eval computes it (EleutherAI/lm-evaluation-harness).

acc: whether the most likely choice is the right one. acc_norm: the same with log-likelihoods divided by the choices'
length in characters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from distill.compute.devices import Device
from distill.data.columns import Array
from distill.models.adapters import unwrap
from distill.scoring.lengths import batch_by_length, pad, run_batches
from shared.errors import DataError

BATCH_TOKENS = 4096  # logits are held for each continuation's tokens: 2 GB in float32 where the vocabulary has 128k


def encode_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Encode a context and what follows it, as lm-eval joins them.

    Spaces at the context's end go to the continuation; the continuation's ids are those of both together, from as many
    on as the context has alone. An empty context is the token that begins a text, or ends one.
    """
    if not context:
        ids = tokenizer.encode(continuation, add_special_tokens=False)
        first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return ([first], ids) if ids[:1] != [first] else (ids[:1], ids[1:])
    bare = context.rstrip()
    before = _encode(tokenizer, bare)
    return before, _encode(tokenizer, context + continuation)[len(before) :]


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Encode a text with what the tokenizer puts before it, unless the text begins with that already."""
    first = tokenizer.eos_token if tokenizer.bos_token is None else tokenizer.bos_token
    ids: list[int] = tokenizer.encode(text, **({"add_special_tokens": False} if text.startswith(first) else {}))
    return ids


def score_choices(
    model: Any,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    device: Device,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Array]:
    """Give each row's continuations their summed log-likelihoods, float64 (choices,), given the row's context.

    All are token ids. What is longer than the model's positions is cut from the left. A context is computed once for
    all of its continuations. A batch has at most `batch_tokens` tokens. Several processes share the rows. Raises
    DataError for a row without a context, or with an empty continuation.
    """
    model.eval()
    for row, (context, choices) in enumerate(zip(contexts, continuations, strict=True)):
        if not context or not choices or not all(choices):
            raise DataError(f"row {row} has an empty context or an empty choice: it cannot be scored by likelihood")
    rows = zip(contexts, continuations, strict=True)
    positions = getattr(unwrap(model).config, "max_position_embeddings", None)
    parts = [part for row, (context, choices) in enumerate(rows) for part in _part(row, context, choices, positions)]
    batches = batch_by_length([part.length for part in parts], batch_tokens)
    scores = run_batches(_Scorer(unwrap(model), parts, device).score, batches, len(parts), device.processes, "choices")
    of_row: list[list[float]] = [[] for _ in contexts]
    for part, found in zip(parts, scores, strict=True):
        of_row[part.row] += found
    return [np.array(found) for found in of_row]


@dataclass(frozen=True, slots=True)
class _Part:
    """Continuations of a row after one context: all of them, or one where it must be cut to fit."""

    row: int
    context: Sequence[int]
    continuations: Sequence[Sequence[int]]

    @property
    def length(self) -> int:
        """Tokens of the context once for each continuation, as they lie in memory, and of the continuations."""
        return len(self.continuations) * (len(self.context) + max(map(len, self.continuations)))


def _part(
    row: int, context: Sequence[int], continuations: Sequence[Sequence[int]], positions: int | None
) -> Iterator[_Part]:
    if positions is None or len(context) + max(map(len, continuations)) <= positions + 1:
        yield _Part(row, context, continuations)
        return
    for continuation in continuations:
        if len(continuation) > positions:
            raise DataError(f"row {row} has a choice of {len(continuation)} tokens; the student has {positions}")
        yield _Part(row, context[-(positions + 1 - len(continuation)) :], [continuation])


@dataclass(frozen=True, slots=True)
class _Scorer:
    model: Any
    parts: Sequence[_Part]
    device: Device

    @torch.inference_mode()
    def score(self, batch: list[int]) -> list[list[float]]:
        """Score a batch: each context without its last token first, then from that on each of its continuations."""
        parts = [self.parts[number] for number in batch]
        owner = [place for place, part in enumerate(parts) for _ in part.continuations]
        said = [continuation for part in parts for continuation in part.continuations]
        starts = [len(parts[place].context) - 1 for place in owner]
        inputs = [[parts[place].context[-1], *ids[:-1]] for place, ids in zip(owner, said, strict=True)]
        with self.device.autocast():
            cache, seen = self._read([part.context[:-1] for part in parts])
            if seen.shape[1]:
                cache.batch_select_indices(torch.tensor(owner, device=self.device.device))
            mask = torch.cat([seen[owner], self._pad([[1] * len(ids) for ids in inputs], left=False)], dim=1)
            places = torch.tensor(starts)[:, None] + torch.arange(max(map(len, inputs)))
            output = self._call(self.model, self._pad(inputs, left=False), mask, places, cache)
        logits = output.logits.float()
        right = logits.gather(2, self._pad(said, left=False)[:, :, None])[:, :, 0]
        scores = (right - logits.logsumexp(dim=2)).double() * self._pad([[1] * len(ids) for ids in said], left=False)
        totals = iter(scores.sum(dim=1).tolist())
        return [[next(totals) for _ in part.continuations] for part in parts]

    def _read(self, contexts: Sequence[Sequence[int]]) -> tuple[DynamicCache, Tensor]:
        """Give the keys and values of contexts that are padded on the left, and their mask; none where all are empty.

        The head, the dearest part over a long context, is left out.
        """
        cache = DynamicCache(config=self.model.config)
        mask = self._pad([[1] * len(ids) for ids in contexts], left=True)
        if mask.shape[1]:
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)
            self._call(self.model.base_model, self._pad(contexts, left=True), mask, places, cache)
        elif self.device.processes.shards:  # others have contexts, and need this process to read any
            token = self._pad([[0]], left=True)
            self._call(self.model.base_model, token, token + 1, token, DynamicCache(config=self.model.config))
        return cache, mask

    def _call(self, model: Any, ids: Tensor, mask: Tensor, places: Tensor, cache: DynamicCache) -> Any:
        taken = signature(model.forward).parameters
        options: dict[str, Any] = {"cache" if "cache" in taken else "past_key_values": cache}  # of transformers 5.2x on
        if "position_ids" in taken:  # a model without numbered positions (ALiBi) takes the mask alone
            options["position_ids"] = places.to(self.device.device)
        return model(input_ids=ids, attention_mask=mask, use_cache=True, **options)

    def _pad(self, rows: Sequence[Sequence[int]], *, left: bool) -> Tensor:
        return torch.tensor(list(pad(rows, 0, left=left)), device=self.device.device, dtype=torch.long)


def judge_choices(likelihoods: Sequence[Array], labels: Sequence[int]) -> Array:
    """Give acc a row, float64 (n,): 1 where the most likely choice is the row's label."""
    return np.array([float(np.argmax(one) == label) for one, label in zip(likelihoods, labels, strict=True)])


def judge_choices_by_length(
    likelihoods: Sequence[Array], labels: Sequence[int], characters: Sequence[Sequence[int]]
) -> Array:
    """Give acc_norm a row, float64 (n,): as acc, with each log-likelihood divided by its choice's `characters`."""
    return judge_choices([one / np.array(each) for one, each in zip(likelihoods, characters, strict=True)], labels)
