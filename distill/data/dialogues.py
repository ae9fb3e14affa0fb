"""Rows of a shard as dialogues: the prompt that a student reads, and the reply that it learns to write.

A prompt is rendered to text once, and encoded without special tokens, but for a beginning that the tokenizer wants and
the text does not have. A reply is encoded on its own, so that where it begins is never a matter of how two texts merge,
and ends with the token that ends a turn. What does not fit is cut from the prompt's left, never from the reply.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from distill.data.answer_weights import AnswerWeights
from distill.data.columns import Array, Share, Tensors
from distill.data.sequences import Dialogue, Sequences, join_sequences, make_sequences
from distill.data.split import describe_row
from shared.errors import DataError
from shared.example import Example, Message
from shared.shards.read import RowGroup
from shared.topk import TOPK_COLUMNS, TopK, decode_topk

Learnt = Literal["reply", "reference"]

EXAMPLE_COLUMNS = (
    *("sample_id", "text", "text_pair", "messages", "choices", "label", "target", "target_text", "references"),
)


class Prompter(Protocol):
    """Writes what a student reads before it replies, and an answer as it is to write it."""

    def write(self, example: Example) -> str:
        """Give the whole prompt as text, rendered by a template, a chat's too."""

    def complete(self, example: Example, answer: str) -> str:
        """Give an answer as the text that follows the prompt."""

    def answer(self, example: Example) -> str | None:
        """Give the right answer of a row; None where it has none."""


@dataclass(frozen=True, slots=True)
class DialogueEncoder:
    """Makes token ids of prompts and replies, at most `max_length` together.

    `ends` are the tokens that end a reply; the first is the one that is put behind a reply that has none. `start` is
    put before a prompt that does not begin with it, and in the place of one that is empty; None puts nothing.
    """

    tokenizer: Any
    max_length: int
    ends: tuple[int, ...]
    start: int | None
    wants_start: bool

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Give the ids of whole prompts, one at least of each."""
        return [self._begin(ids) for ids in self.encode(prompts)]

    def _begin(self, ids: list[int]) -> list[int]:
        missing = not ids or (self.wants_start and ids[0] != self.start)
        return [self.start, *ids] if missing and self.start is not None else ids

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of texts, without special tokens of the tokenizer's own."""
        encoded = self.tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(each.ids) for each in encoded]

    def end(self, ids: Sequence[int]) -> list[int]:
        """Give a reply with its end token, which it may have."""
        ended = bool(len(ids)) and ids[-1] in self.ends
        return list(ids) if ended else [*ids, self.ends[0]]

    def fit(
        self,
        prompt: Sequence[int],
        reply: Sequence[int],
        top: TopK | None = None,
        weights: Sequence[float] | None = None,
    ) -> Dialogue | None:
        """Put a reply behind a prompt, which is cut from the left; None where not one token of that is left."""
        left = self.max_length - len(reply)
        return Dialogue(prompt[-left:], reply, top, weights) if left > 0 and len(prompt) else None


def make_encoder(tokenizer: Any, max_length: int, ends: Sequence[int]) -> DialogueEncoder:
    """Make an encoder that begins prompts as the tokenizer begins texts."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    begun = tokenizer("a")["input_ids"]
    wants = bos is not None and bool(begun) and begun[0] == bos
    return DialogueEncoder(tokenizer, max_length, tuple(ends), eos if bos is None else bos, wants)


class Written(NamedTuple):
    """A reply before it is put behind its prompt: its ids, end token included, and the teacher's top K of them."""

    ids: list[int]
    top: TopK | None = None


@dataclass(frozen=True, slots=True)
class DialogueColumn:
    """Dialogues of a split's rows. Every row that is decoded must have a reply that fits: see `encode_rows`.

    `learnt` names whose words the reply is. `same_tokenizer` says that the teacher's ids are the student's too: then
    they are taken as they are, with the top K where `with_top`. `shuffle` is a seed where the teacher's words, or with
    `with_top` its distributions, are to be those of others: of other rows of the row group, or of other tokens. Which
    tokens the teacher's own K name stays then: what is learnt beside a distribution is learnt at no other tokens.
    `answers` weighs the tokens of a reply's final answer; all weigh alike without.
    """

    encoder: DialogueEncoder
    prompter: Prompter
    learnt: Learnt
    same_tokenizer: bool = False
    with_top: bool = False
    shuffle: int | None = None
    answers: AnswerWeights | None = None

    @property
    def shard_columns(self) -> tuple[str, ...]:
        """The columns of a shard that hold the examples, and what the teacher said."""
        if self.learnt == "reference":
            return EXAMPLE_COLUMNS
        ids = ("reply_ids",) if self.same_tokenizer else ()
        return (*EXAMPLE_COLUMNS, "reply", *ids, *(TOPK_COLUMNS if self.with_top else ()))

    def encode_rows(self, table: pa.Table, rows: Array) -> list[Dialogue | None]:
        """Encode some rows of a table with the `shard_columns`; None where there is no reply, or it does not fit.

        Their tokens are not weighed, which takes several times as long.
        """
        return self._encode(*self._read(table, rows))

    def _read(self, table: pa.Table, rows: Array) -> tuple[pa.Table, list[Example]]:
        picked = table.select(list(self.shard_columns)).take(pa.array(rows))
        return picked, read_examples(picked)

    def _encode(self, table: pa.Table, examples: Sequence[Example]) -> list[Dialogue | None]:
        prompts = self.encoder.encode_prompts([self.prompter.write(example) for example in examples])
        replies = self._write_replies(table, examples)
        return [
            None if reply is None else self.encoder.fit(prompt, reply.ids, reply.top)
            for prompt, reply in zip(prompts, replies, strict=True)
        ]

    def _weigh(self, example: Example, dialogue: Dialogue | None) -> Dialogue | None:
        if self.answers is None or dialogue is None:
            return dialogue
        return dialogue._replace(weights=self.answers.weigh(example, dialogue.reply).tolist())

    def _write_replies(self, table: pa.Table, examples: Sequence[Example]) -> list[Written | None]:
        if self.learnt == "reference":
            texts = [self.prompter.answer(example) for example in examples]
        else:
            texts = table["reply"].to_pylist()
        spoken = [
            "" if text is None else self.prompter.complete(example, text)
            for example, text in zip(examples, texts, strict=True)
        ]
        encoded: list[Sequence[int] | None] = list(self.encoder.encode(spoken))
        encoded = [None if text is None else ids for ids, text in zip(encoded, texts, strict=True)]
        if self.learnt == "reply" and self.same_tokenizer:
            own = table["reply_ids"].to_pylist()
            encoded = [ids if given is None else given for given, ids in zip(own, encoded, strict=True)]
        tops = decode_topk(table, range(len(table))) if self.with_top else [None] * len(table)
        return [
            None if ids is None or not len(ids) else Written(self.encoder.end(ids), top)
            for ids, top in zip(encoded, tops, strict=True)
        ]

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Sequences:
        """Give the dialogues of some rows: see BatchColumn."""
        picked, examples = self._read(table, rows)
        dialogues = list(map(self._weigh, examples, self._encode(picked, examples)))
        if self.shuffle is not None and not self.with_top:
            dialogues = self._swap_replies(dialogues, start)
        for row, each in zip(rows, dialogues, strict=True):
            if each is None:
                raise DataError(
                    f"{describe_row(group, int(row))} has no {self.learnt} of up to {self.encoder.max_length} tokens"
                )
        made = make_sequences([each for each in dialogues if each is not None])
        return self._swap_tops(made, start) if self.shuffle is not None and self.with_top else made

    def _swap_replies(self, dialogues: list[Dialogue | None], start: int) -> list[Dialogue | None]:
        order = np.random.default_rng([self.shuffle or 0, start]).permutation(len(dialogues))
        others = [dialogues[index] for index in order]
        return [
            None if own is None or other is None else self.encoder.fit(own.prompt, other.reply, weights=other.weights)
            for own, other in zip(dialogues, others, strict=True)
        ]

    def _swap_tops(self, made: Sequences, start: int) -> Sequences:
        has = np.flatnonzero(made.has_top)
        order = np.arange(len(made.has_top))
        order[has] = np.random.default_rng([self.shuffle or 0, start]).permutation(has)
        tops = {name: getattr(made, name)[order] for name in ("top_ids", "top_logprobs", "tail", "has_top")}
        return replace(made, **tops)

    def count_bytes(self, stored: int, rows: int) -> int:
        """Bound the memory of some dialogues: 4 bytes a token, and what the top K takes once it is decoded.

        A text has no more tokens than bytes; a template adds some.
        """
        tokens = min(stored + 1024 * rows, rows * self.encoder.max_length)
        return 4 * tokens + (4 * stored if self.with_top else 0) + 64 * rows

    def join(self, parts: Sequence[Sequences]) -> Sequences:
        """Put dialogues one after the other."""
        return join_sequences(parts)

    def take(self, values: Sequences, rows: Array) -> Sequences:
        """Pick the dialogues of some rows."""
        return values.take(rows)

    def measure(self, values: Sequences) -> Array:
        """Give the number of tokens of each dialogue."""
        return values.lengths

    def collate(self, values: Sequences, share: Share | None = None) -> Tensors:
        """Pad the dialogues, or those that `share` picks: see Sequences.collate."""
        pad_id = self.encoder.ends[0]  # whichever: what is padding is told by length
        own = values if share is None else values.take(share(len(values)))
        return own.collate(pad_id, values)


def read_examples(table: pa.Table) -> list[Example]:
    """Read the examples of a table with the columns EXAMPLE_COLUMNS."""
    columns = {name: table[name].to_pylist() for name in EXAMPLE_COLUMNS}
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [
        Example(
            **{
                **row,
                "choices": _to_tuple(row["choices"]),
                "references": _to_tuple(row["references"]),
                "messages": None
                if row["messages"] is None
                else tuple(Message(turn["role"], turn["content"]) for turn in row["messages"]),
            }
        )
        for row in rows
    ]


def _to_tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
