"""Shards to batches: row groups in random order, shuffled within a bounded buffer, batched by length.

What an epoch gives depends on (seed, epoch) alone, so that a batch is named by (epoch, its index), and an epoch can be
entered at any batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distill.data.columns import TEXT, Array, BatchColumn, Share, Tensors
from distill.data.split import Bools, Split
from shared.shards.read import RowGroup, read_row_group

CHUNK = 16  # batches that are sorted by length together


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a split: the values of each of `columns`, by name; `number` is a row's place in the split."""

    number: Array
    columns: Mapping[str, BatchColumn]
    values: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: Array) -> "Rows":
        """Pick some of them, in the order of `rows`."""
        taken = {name: column.take(self.values[name], rows) for name, column in self.columns.items()}
        return Rows(self.number[rows], self.columns, taken)

    def measure(self) -> Array | None:
        """Give each row's length, by the first column whose values have one; None where there is no such column."""
        lengths = (column.measure(self.values[name]) for name, column in self.columns.items())
        return next((each for each in lengths if each is not None), None)

    def sort_by_length(self) -> "Rows":
        """Put the shortest first; rows without a length stay as they are."""
        lengths = self.measure()
        return self if lengths is None else self.take(np.argsort(lengths, kind="stable"))

    def collate(self, share: Share | None = None) -> "Batch":
        """Make a batch of them; columns that each process needs its own share of have the rows that `share` picks."""
        return Batch(self.number, {n: column.collate(self.values[n], share) for n, column in self.columns.items()})


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Put all rows of all parts one after the other; the parts have the same columns."""
    if len(parts) == 1:
        return parts[0]
    columns = parts[0].columns
    values = {name: column.join([part.values[name] for part in parts]) for name, column in columns.items()}
    return Rows(np.concatenate([part.number for part in parts]), columns, values)


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows as tensors, by the name of their column; `number` is a row's place in the split.

    Where several processes share a batch, the texts are this process's; all else is of all rows.
    """

    number: Array
    columns: Mapping[str, Tensors]

    def __len__(self) -> int:
        return len(self.number)

    def tensor(self, name: str) -> Tensor:
        """Give a column that is one tensor, (n, ...)."""
        tensor = self.columns[name]
        assert isinstance(tensor, Tensor), f"{name} is several tensors"
        return tensor

    def inputs(self, name: str = TEXT) -> dict[str, Tensor]:
        """Give a column that is several tensors, by name: a text is all that a model takes."""
        tensors = self.columns[name]
        assert isinstance(tensors, dict), f"{name} is one tensor"
        return tensors

    def to(self, device: torch.device) -> "Batch":
        """Move all tensors to another device."""
        return self._map(partial(Tensor.to, device=device, non_blocking=True))

    def pin(self) -> "Batch":
        """Copy all tensors to memory that a GPU copies from while it computes."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Tensors] = {
            name: change(each) if isinstance(each, Tensor) else {key: change(tensor) for key, tensor in each.items()}
            for name, each in self.columns.items()
        }
        return Batch(self.number, changed)


@dataclass(frozen=True, slots=True)
class Block:
    """`rows` rows that are in memory together, once `read`; in another `order` than they are kept in, where given."""

    rows: int
    load: Callable[[], Rows]
    order: Array | None = None

    def read(self) -> Rows:
        """Read the rows."""
        return self.load() if self.order is None else self.load().take(self.order)


class RowSource:
    """The rows of a split that `wanted` marks, with the values of each of `columns`.

    At most about `buffer_rows` rows, rounded up to a row group, are in memory; a source of no more rows is read once.
    """

    def __init__(self, split: Split, columns: Mapping[str, BatchColumn], *, wanted: Bools, buffer_rows: int) -> None:
        self.rows = int(wanted.sum())
        self.columns = columns
        self._wanted, self._buffer_rows = wanted, buffer_rows
        self._groups = [
            (group, start)
            for group, start in zip(split.groups, split.starts(), strict=True)
            if wanted[start : start + group.rows].any()
        ]
        self._kept: Rows | None = None

    def blocks(self, rng: np.random.Generator | None = None) -> Iterator[Block]:
        """Give all rows once, a buffer at a time: shuffled, or without `rng` in the order of the shards.

        What `rng` draws does not depend on which blocks are read.
        """
        if self.rows <= self._buffer_rows:
            yield Block(self.rows, self._read_once, None if rng is None else rng.permutation(self.rows))
            return
        order = np.arange(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
        buffer: list[tuple[RowGroup, int]] = []
        filled = 0
        for index in order:
            group, start = self._groups[index]
            buffer.append((group, start))
            filled += int(self._wanted[start : start + group.rows].sum())
            if filled >= self._buffer_rows or index == order[-1]:
                load = partial(self._read, buffer)
                yield Block(filled, load, None if rng is None else rng.permutation(filled))
                buffer, filled = [], 0

    def _read_once(self) -> Rows:
        if self._kept is None:
            self._kept = self._read(self._groups)
        return self._kept

    def _read(self, groups: Sequence[tuple[RowGroup, int]]) -> Rows:
        needed = list(dict.fromkeys(name for column in self.columns.values() for name in column.shard_columns))
        numbers: list[Array] = []
        parts: dict[str, list[Any]] = {name: [] for name in self.columns}
        for group, start in groups:
            rows = np.flatnonzero(self._wanted[start : start + group.rows])
            numbers.append(rows + start)
            table = read_row_group(group, needed) if needed else pa.table({})
            for name, column in self.columns.items():
                parts[name].append(column.decode(table, rows, group, start))
        values = {name: column.join(parts[name]) for name, column in self.columns.items()}
        return Rows(np.concatenate(numbers), self.columns, values)


class Cursor:
    """Draws rows from a source without end: each cycle gives every row once, in an order of its own."""

    def __init__(self, source: RowSource, seed: Sequence[int]) -> None:
        self._source, self._seed = source, list(seed)
        self._cycle = 0
        self._blocks: Iterator[Block] = iter(())
        self._block = Block(0, partial(join_rows, []))
        self._rows: Rows | None = None  # those of the block, once it was read
        self._position = 0

    def take(self, count: int) -> Rows:
        """Give the next `count` rows."""
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
        """Give the pieces of blocks, one after the other, that the next `count` rows are."""
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
class BatchPart:
    """A share of every batch: `rows` of a source, drawn over and over, or with `once` until it has given each row."""

    source: RowSource
    rows: int
    once: bool = False


def count_batches(source: RowSource, batch_size: int) -> int:
    """Count the batches of one pass."""
    return -(-source.rows // batch_size)


def iterate_batches(
    parts: Sequence[BatchPart],
    steps: int,
    seed: int,
    epoch: int,
    *,
    start: int = 0,
    share: Share | None = None,
) -> Iterator[Batch]:
    """Make the `steps` batches of an epoch, from batch `start` on, each of rows of every part.

    CHUNK batches are drawn and sorted by length at a time and come in random order, so that texts of like length share
    a batch and yet no epoch goes from short to long. `share` is that of distill.data.columns.BatchColumn.collate.
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
            yield join_rows(pieces).collate(share)
