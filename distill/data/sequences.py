"""Prompts with the replies that follow them, as token ids, and what a teacher said of each token of a reply.

Rows are kept end to end, without padding. A batch is padded on the right, and what it is held to is named by place: no
token is told from padding by its id, because many tokenizers pad with their end token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.data.columns import Array
from shared.topk import NO_TOKEN, TopK

PLACES = "places"
OF_REPLIES = ("top_ids", "top_logprobs", "tail", "has_top", "weights", "named")  # an entry a token of all replies
_FILLS = {"top_ids": NO_TOKEN, "top_logprobs": -np.inf}  # of those that are K wide


class Dialogue(NamedTuple):
    """Token ids of a prompt, and of the reply to it with its end token.

    `top` is what a teacher said at the first positions of the reply; those after its n have none. `weights` are those
    of the reply's tokens; 1 unless given.
    """

    prompt: Sequence[int]
    reply: Sequence[int]
    top: TopK | None = None
    weights: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Sequences:
    """n dialogues: the ids of dialogue i lie from `offsets`[i] to `offsets`[i + 1], its prompt's first.

    `prompts` (n,) counts those. `reply_offsets` does for replies what `offsets` does for all; the teacher's top K lie
    in that order: `top_ids` and `top_logprobs` (replies' tokens, K), `tail` and `has_top` (replies' tokens,); and so do
    the `weights` of the tokens, and `named`, whether its own top K names a token.
    """

    ids: Array
    offsets: Array
    prompts: Array
    top_ids: Array
    top_logprobs: Array
    tail: Array
    has_top: Array
    weights: Array
    named: Array

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> Array:
        """Tokens of each dialogue."""
        return np.diff(self.offsets)

    @property
    def reply_offsets(self) -> Array:
        """Where each reply begins among all replies' tokens, and the end."""
        return np.concatenate([[0], np.cumsum(self.lengths - self.prompts)])

    def take(self, rows: Array) -> "Sequences":
        """Pick some dialogues, in the order of `rows`."""
        where, offsets = _spread(self.offsets, rows)
        of_reply, _ = _spread(self.reply_offsets, rows)
        return Sequences(
            self.ids[where],
            offsets,
            self.prompts[rows],
            *(getattr(self, name)[of_reply] for name in OF_REPLIES),
        )

    def collate(self, pad_id: int, whole: "Sequences | None" = None) -> dict[str, Tensor]:
        """Make a padded batch: see the fields below. `whole` is the batch that these are one process's share of.

        `input_ids` and `attention_mask` (n, t). Of the m tokens of all replies: `places` (m,), where the token before
        each lies in a flattened (n t,); `row` (m,), whose reply it is; `said` (m,), its id; `top_ids`, `top_logprobs`
        (m, K), `tail`, `has_top`, `weights` and `named` (m,). Of each row: `prompt_lengths` and `lengths` (n,). And
        over the `whole` batch `counts` (2,): the replies' tokens, and those with a top K; `weighed` (1,), the sum of
        weights.
        """
        lengths, longest = self.lengths, int(self.lengths.max())
        mask = np.arange(longest) < lengths[:, None]
        ids = np.full(mask.shape, pad_id, np.int64)
        ids[mask] = self.ids
        replied = mask & (np.arange(longest) >= self.prompts[:, None])
        row, place = np.nonzero(replied)
        whole = whole or self
        fields = {
            "input_ids": ids,
            "attention_mask": mask.astype(np.int64),
            PLACES: row * longest + place - 1,
            "row": row,
            "said": ids[replied],
            **{name: getattr(self, name) for name in OF_REPLIES},
            "prompt_lengths": self.prompts,
            "lengths": lengths,
            "counts": np.array([len(whole.has_top), whole.has_top.sum()], np.int64),
            "weighed": np.array([whole.weights.sum(dtype=np.float64)], np.float32),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(field)) for name, field in fields.items()}


def _spread(offsets: Array, rows: Array) -> tuple[Array, Array]:
    """Give the places of all entries of some rows, one after the other, and those rows' offsets among them."""
    lengths = np.diff(offsets)[rows]
    after = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(offsets[:-1][rows] - after[:-1], lengths) + np.arange(after[-1]), after


def make_sequences(dialogues: Sequence[Dialogue]) -> Sequences:
    """Put dialogues end to end."""
    lengths = [len(each.prompt) + len(each.reply) for each in dialogues]
    replies = [len(each.reply) for each in dialogues]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    ids = np.fromiter((id for each in dialogues for part in each[:2] for id in part), np.int32, int(offsets[-1]))
    width = max((each.top.ids.shape[1] for each in dialogues if each.top is not None), default=0)
    total = sum(replies)
    top_ids = np.full((total, width), NO_TOKEN, np.int32)
    top_logprobs = np.full((total, width), -np.inf, np.float32)
    tail, weights = np.zeros(total, np.float32), np.ones(total, np.float32)
    has_top, named = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
    start = 0
    for each, length in zip(dialogues, replies, strict=True):
        if each.top is not None:
            here = slice(start, start + min(length, len(each.top.tail)))
            count, own = here.stop - start, each.top.ids.shape[1]
            top_ids[here, :own], top_logprobs[here, :own] = each.top.ids[:count], each.top.logprobs[:count]
            tail[here], has_top[here] = each.top.tail[:count], True
            named[here] = (top_ids[here] == np.asarray(each.reply[:count])[:, None]).any(1)
        if each.weights is not None:
            weights[start : start + length] = each.weights
        start += length
    prompts = np.array([len(each.prompt) for each in dialogues], np.int64)
    return Sequences(ids, offsets, prompts, top_ids, top_logprobs, tail, has_top, weights, named)


def join_sequences(parts: Sequence[Sequences]) -> Sequences:
    """Put the dialogues of all parts one after the other; the widest K is that of all."""
    width = max(part.top_ids.shape[1] for part in parts)
    return Sequences(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]),
        np.concatenate([part.prompts for part in parts]),
        *(
            np.concatenate([_widen(getattr(part, name), width, _FILLS.get(name)) for part in parts])
            for name in OF_REPLIES
        ),
    )


def _widen(array: Array, width: int, fill: float | None) -> Array:
    """Bring the second axis to `width`; nothing without a `fill`."""
    if fill is None:
        return array
    return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)
