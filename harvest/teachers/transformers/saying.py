"""Replies, token by token: each row's choice is its own, whatever else is in the batch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harvest.chat.written import SaidToken
from harvest.teachers.transformers.model import LocalModel, Prefill

STOP, LENGTH = "stop", "length"  # finish_reason


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: the most probable one at temperature 0, else by chance.

    `top_k`, `min_p` and `repetition_penalty` are those that a model's makers set for it, as vLLM takes them.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def choose(self, logits: Any, seen: Sequence[Any], generators: Sequence[Any]) -> Any:
        """A token for each row of `logits` (B, V). `seen` are the ids of each row so far, padding left out."""
        import torch

        if self.repetition_penalty != 1.0:
            logits = logits.clone()
            for row, ids in zip(logits, seen, strict=True):
                some = row[ids]
                row[ids] = torch.where(some < 0, some * self.repetition_penalty, some / self.repetition_penalty)
        if self.temperature == 0:
            return logits.argmax(-1)
        probabilities = self._filter(logits / self.temperature).softmax(-1).cpu()
        drawn = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(probabilities, generators, strict=True)
        ]
        return torch.cat(drawn).to(logits.device)

    def _filter(self, scores: Any) -> Any:
        """Leave out improbable tokens (https://huggingface.co/docs/transformers/internal/generation_utils)."""
        from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        unread: Any = None  # the ids so far
        if self.top_k:
            scores = TopKLogitsWarper(self.top_k)(unread, scores)
        if self.top_p is not None and self.top_p < 1:
            scores = TopPLogitsWarper(self.top_p)(unread, scores)
        if self.min_p:
            scores = MinPLogitsWarper(self.min_p)(unread, scores)
        return scores


@dataclass(frozen=True, slots=True)
class Said:
    """One reply: its tokens, the one that ended it included, and why it ended: `finish_reason`."""

    tokens: Sequence[SaidToken]
    finish_reason: str

    @property
    def text_ids(self) -> list[int]:
        """The tokens of its text."""
        ids = [one.token for one in self.tokens]
        return ids[:-1] if self.finish_reason == STOP else ids


def say(
    model: LocalModel,
    prefill: Prefill,
    sampling: Sampling,
    limits: Sequence[int],
    *,
    ends: Collection[int],
    seeds: Sequence[int],
    topk: int | None,
) -> list[Said]:
    """The reply to each prompt, of at most so many tokens, with the `topk` most probable tokens in each one's place."""
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    ids = prefill.inputs["input_ids"]
    seen = [row[mask.bool()] for row, mask in zip(ids, prefill.mask, strict=True)]
    said: list[list[SaidToken]] = [[] for _ in seeds]
    reasons: dict[int, str] = {}
    logits, mask = prefill.logits, prefill.mask
    while True:
        tokens = sampling.choose(logits, seen, generators)
        for row, one in enumerate(_describe(logits, tokens, topk)):
            if row not in reasons:
                said[row].append(one)
                if one.token in ends:
                    reasons[row] = STOP
                elif len(said[row]) == limits[row]:
                    reasons[row] = LENGTH
        if len(reasons) == len(said):
            return [Said(one, reasons[row]) for row, one in enumerate(said)]
        seen = [torch.cat([before, token[None]]) for before, token in zip(seen, tokens, strict=True)]
        # A row that has ended is computed on with the others, and takes up no position: its context may be full.
        going = torch.tensor([[row not in reasons] for row in range(len(said))], device=mask.device)
        mask = torch.cat([mask, going.to(mask.dtype)], dim=1)
        logits = model.follow(prefill.cache, mask, tokens)


def _describe(logits: Any, tokens: Any, topk: int | None) -> list[SaidToken]:
    """Each row's token with its natural log-probability, and those of the most probable ones."""
    total = logits.logsumexp(-1, keepdim=True)
    values = (logits.gather(-1, tokens[:, None]) - total)[:, 0].tolist()
    tops: list[Mapping[int, float]] = [{} for _ in values]
    if topk is not None:
        top = logits.topk(min(topk, logits.shape[-1]), dim=-1)
        found = zip(top.indices.tolist(), (top.values - total).tolist(), strict=True)
        tops = [dict(zip(ids, numbers, strict=True)) for ids, numbers in found]
    return [SaidToken(*one) for one in zip(tokens.tolist(), values, tops, strict=True)]
