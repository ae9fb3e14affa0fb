"""Shards to batches: row groups in random order, shuffled within a bounded buffer, batched by length.

What an epoch gives depends on (seed, epoch) alone, so that a batch is named by (epoch, its index), and an epoch can be
entered at any batch. Reading, tokenising and padding happen in a thread that works ahead of training.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distill.data.split import Bools, Split
from distill.data.tokens import TextEncoder, Tokens, join_tokens
from distill.data.vectors import TeacherVectors
from shared.shards.read import RowGroup, read_row_group

Array = np.ndarray[Any, Any]
Lookup = Callable[[Array], Array]  # row numbers -> vectors (n, width)

T = TypeVar("T")

CHUNK = 16  # batches that are sorted by length together
AHEAD = 8  # batches that wait, ready, for training


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a split, one entry each; `number` is a row's place in the split."""

    number: Array
    target: Array
    labelled: Bools
    tokens: Tokens | None
    vectors: Array | None

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: Array) -> "Rows":
        """Some of them, in the order of `rows`."""
        return Rows(
            self.number[rows],
            self.target[rows],
            self.labelled[rows],
            None if self.tokens is None else self.tokens.take(rows),
            None if self.vectors is None else self.vectors[rows],
        )

    def sort_by_length(self) -> "Rows":
        """Shortest text first; rows without text stay as they are."""
        return self if self.tokens is None else self.take(np.argsort(self.tokens.lengths, kind="stable"))


def join_rows(parts: Sequence[Rows]) -> Rows:
    """All rows of all parts, one part after the other; the parts have the same columns."""
    if len(parts) == 1:
        return parts[0]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    vectors = [part.vectors for part in parts if part.vectors is not None]
    return Rows(
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.labelled for part in parts]),
        join_tokens(tokens) if tokens else None,
        np.concatenate(vectors) if vectors else None,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows as tensors: `inputs` for the student's model, `vectors` float32 (n, width), `target` and `labelled`.

    Where several processes share a batch, `inputs` are this process's rows; all else is of all rows.
    """

    inputs: dict[str, Tensor]
    vectors: Tensor | None
    target: Tensor
    labelled: Tensor
    number: Array

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()},
            None if self.vectors is None else self.vectors.to(device, non_blocking=True),
            self.target.to(device, non_blocking=True),
            self.labelled.to(device, non_blocking=True),
            self.number,
        )

    def pin(self) -> "Batch":
        """The same in memory that a GPU copies from while it computes."""
        return Batch(
            {name: tensor.pin_memory() for name, tensor in self.inputs.items()},
            None if self.vectors is None else self.vectors.pin_memory(),
            self.target.pin_memory(),
            self.labelled.pin_memory(),
            self.number,
        )


@dataclass(frozen=True, slots=True)
class Block:
    """`rows` rows that are in memory together, once `read`."""

    rows: int
    read: Callable[[], Rows]


class Source:
    """The rows of a split that `wanted` marks, with their tokens, their vectors, or both.

    `labelled` marks the rows whose label may be seen. `lookup` gives vectors in place of the shards' own. At most about
    `buffer_rows` rows, rounded up to a row group, are in memory; a source of no more rows is read and tokenised once.
    """

    def __init__(
        self,
        split: Split,
        wanted: Bools,
        labelled: Bools,
        *,
        encoder: TextEncoder | None = None,
        vectors: TeacherVectors | None = None,
        lookup: Lookup | None = None,
        buffer_rows: int,
    ) -> None:
        self.rows = int(wanted.sum())
        self.truncated = 0  # texts that were cut, counted while the first pass reads them
        self._split, self._wanted, self._labelled = split, wanted, labelled
        self._encoder, self._vectors, self._lookup = encoder, vectors, lookup
        self._buffer_rows = buffer_rows
        self._groups = [
            (group, start)
            for group, start in zip(split.groups, split.starts(), strict=True)
            if wanted[start : start + group.rows].any()
        ]
        self._kept: Rows | None = None
        self._counted: set[int] = set()

    def blocks(self, rng: np.random.Generator | None = None) -> Iterator[Block]:
        """All rows once, a buffer at a time: shuffled, or without `rng` in the order of the shards.

        What `rng` draws does not depend on which blocks are read.
        """

        def make(rows: int, read: Callable[[], Rows]) -> Block:
            if rng is None:
                return Block(rows, read)
            order = rng.permutation(rows)
            return Block(rows, lambda: read().take(order))

        if self.rows <= self._buffer_rows:
            yield make(self.rows, self._keep)
            return
        order = np.arange(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
        buffer: list[tuple[RowGroup, int]] = []
        filled = 0
        for index in order:
            group, start = self._groups[index]
            buffer.append((group, start))
            filled += int(self._wanted[start : start + group.rows].sum())
            if filled >= self._buffer_rows or index == order[-1]:
                yield make(filled, partial(self._read, buffer))
                buffer, filled = [], 0

    def _keep(self) -> Rows:
        if self._kept is None:
            self._kept = self._read(self._groups)
        return self._kept

    def _read(self, groups: Sequence[tuple[RowGroup, int]]) -> Rows:
        numbers: list[Array] = []
        tokens: list[Tokens] = []
        vectors: list[Array] = []
        read_vectors = self._vectors if self._lookup is None else None
        columns = [
            *(("text", "text_pair") if self._encoder else ()),
            *(read_vectors.columns if read_vectors else ()),
        ]
        for group, start in groups:
            rows = np.flatnonzero(self._wanted[start : start + group.rows])
            numbers.append(rows + start)
            table = read_row_group(group, columns)
            if self._encoder is not None:
                texts = (table[name].take(pa.array(rows)).to_pylist() for name in ("text", "text_pair"))
                encoded, cut = self._encoder.encode(*texts)
                tokens.append(encoded)
                if start not in self._counted:
                    self._counted.add(start)
                    self.truncated += cut
            if read_vectors is not None:
                vectors.append(read_vectors.decode(table, rows, group, start))
        number = np.concatenate(numbers)
        if self._lookup is not None:
            vectors = [self._lookup(number)]
        return Rows(
            number,
            self._split.target[number],
            self._labelled[number],
            join_tokens(tokens) if tokens else None,
            np.concatenate(vectors) if vectors else None,
        )


class Cursor:
    """Draws rows from a source without end: each cycle gives every row once, in an order of its own."""

    def __init__(self, source: Source, seed: Sequence[int]) -> None:
        self._source, self._seed = source, list(seed)
        self._cycle = 0
        self._blocks: Iterator[Block] = iter(())
        self._block = Block(0, lambda: join_rows([]))
        self._rows: Rows | None = None  # those of the block, once it was read
        self._position = 0

    def take(self, count: int) -> Rows:
        """The next `count` rows."""
        parts = []
        for start, end in self._advance(count):
            if self._rows is None:
                self._rows = self._block.read()
            parts.append(self._rows.take(np.arange(start, end)))
        return join_rows(parts)

    def skip(self, count: int) -> None:
        """Pass over the next `count` rows. Blocks that they fill are not read."""
        for _ in self._advance(count):
            pass

    def _advance(self, count: int) -> Iterator[tuple[int, int]]:
        """The pieces of blocks, one after the other, that the next `count` rows are."""
        while count:
            if self._position == self._block.rows:
                self._block, self._rows, self._position = self._next_block(), None, 0
            start, self._position = self._position, min(self._block.rows, self._position + count)
            count -= self._position - start
            yield start, self._position

    def _next_block(self) -> Block:
        block = next(self._blocks, None)
        if block is None:
            self._blocks = self._source.blocks(np.random.default_rng([*self._seed, self._cycle]))
            self._cycle += 1
            block = next(self._blocks)
        return block


@dataclass(frozen=True, slots=True)
class Part:
    """A share of every batch: `rows` of a source, drawn over and over, or with `once` until it has given each row."""

    source: Source
    rows: int
    once: bool = False


def count_batches(source: Source, batch_size: int) -> int:
    """Batches of one pass."""
    return -(-source.rows // batch_size)


def iterate_batches(
    parts: Sequence[Part],
    steps: int,
    seed: int,
    epoch: int,
    encoder: TextEncoder | None = None,
    *,
    start: int = 0,
    share: Callable[[int], Array] | None = None,
) -> Iterator[Batch]:
    """`steps` batches of an epoch, from batch `start` on, each made of rows of every part.

    CHUNK batches are drawn and sorted by length at a time and come in random order, so that texts of like length share
    a batch and yet no epoch goes from short to long. `encoder` pads the texts: all of a batch, or those that `share`
    picks of its n.
    """
    rng = np.random.default_rng([seed, epoch])
    cursors = [Cursor(part.source, [seed, epoch, index]) for index, part in enumerate(parts)]
    for done in range(0, steps, CHUNK):
        count = min(CHUNK, steps - done)
        order = rng.permutation(count)
        wanted = [
            min(count * part.rows, part.source.rows - done * part.rows) if part.once else count * part.rows
            for part in parts
        ]
        if done + count <= start:
            for rows, cursor in zip(wanted, cursors, strict=True):
                cursor.skip(rows)
            continue
        drawn = [cursor.take(rows).sort_by_length() for rows, cursor in zip(wanted, cursors, strict=True)]
        for index in order[max(0, start - done) :]:
            pieces = [
                rows.take(np.arange(index * part.rows, min((index + 1) * part.rows, len(rows))))
                for part, rows in zip(parts, drawn, strict=True)
            ]
            yield collate(join_rows(pieces), encoder, share)


def collate(rows: Rows, encoder: TextEncoder | None = None, share: Callable[[int], Array] | None = None) -> Batch:
    """Rows as tensors; texts, or those that `share` picks, are padded to the longest."""
    inputs: dict[str, Tensor] = {}
    if rows.tokens is not None and encoder is not None:
        inputs = encoder.collate(rows.tokens if share is None else rows.tokens.take(share(len(rows))))
    return Batch(
        inputs,
        None if rows.vectors is None else torch.from_numpy(rows.vectors.astype(np.float32)),
        torch.from_numpy(rows.target),
        torch.from_numpy(rows.labelled),
        rows.number,
    )


@dataclass(frozen=True, slots=True)
class _End:
    """The end of what a thread makes, and what it died of."""

    error: BaseException | None


def work_ahead(items: Iterator[T], ahead: int = AHEAD) -> Generator[T]:
    """The same items, made by a thread that is at most `ahead` of them ahead.

    What the thread raises is raised here. The thread ends when the items do, or when this generator is closed.
    """
    ready: Queue[T | _End] = Queue(ahead)
    closed = Event()

    def work() -> None:
        end = _End(None)
        try:
            for item in items:
                ready.put(item)
                if closed.is_set():
                    return
        except BaseException as error:  # whatever it is, it is raised where the items are taken
            end = _End(error)
        ready.put(end)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        while thread.is_alive():  # it may wait for a place in the queue
            with suppress(Empty):
                ready.get(timeout=0.05)
