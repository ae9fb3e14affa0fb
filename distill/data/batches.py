"""Shards to batches: row groups in random order, shuffled within a bounded buffer, batched by length.

What an epoch gives depends on (seed, epoch) alone, so that a batch is named by (epoch, its index), and an epoch can be
entered at any batch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.data.columns import (
    PIECE_BYTES,
    TEXT,
    Array,
    BatchColumn,
    Piece,
    Share,
    Tensors,
    cut_groups,
    list_shard_columns,
    read_piece,
)
from distill.data.split import Bools, Split
from shared.shards.read import GroupReader
from shared.stores.ahead import fetch_ahead, fetch_soon

CHUNK = 16  # batches that are sorted by length together, at most


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

    def order_by_length(self) -> Array:
        """Give the rows' places, the shortest first; rows without a length stay as they are."""
        lengths = self.measure()
        return np.arange(len(self)) if lengths is None else np.argsort(lengths, kind="stable")

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


class HeldRows:
    """Rows that are in memory, in parts as they were read: none is copied before it is taken.

    They are in the order of the parts, or with `order` those that it names, in that.
    """

    def __init__(self, parts: Sequence[Rows], order: Array | None = None) -> None:
        self._parts, self._order = tuple(parts), order
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._order is None else len(self._order)

    def take(self, start: int, end: int) -> Rows:
        """Copy the rows from place `start` up to `end`."""
        rows = np.arange(start, end) if self._order is None else self._order[start:end]
        if len(self._parts) == 1:
            return self._parts[0].take(rows)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        grouped = np.argsort(owners, kind="stable")
        pieces = [
            self._parts[owner].take(rows[own] - self._starts[owner])
            for owner, own in _split_sorted(owners[grouped], grouped)
        ]
        return join_rows(pieces).take(np.argsort(grouped, kind="stable"))

    def reorder(self, order: Array | None) -> "HeldRows":
        """Give them in the order of their places `order`; None leaves them as they are."""
        if order is None:
            return self
        return HeldRows(self._parts, order if self._order is None else self._order[order])

    def join(self) -> Rows:
        """Copy all rows into one part, unless they are."""
        return join_rows(self._parts) if self._order is None else self.take(0, len(self))


def _split_sorted(names: Array, values: Array) -> Iterator[tuple[int, Array]]:
    """Give each name of a sorted array, and the values that stand beside it."""
    bounds = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
    for first, end in pairwise(bounds):
        yield int(names[first]), values[first:end]


@dataclass(frozen=True, slots=True)
class Block:
    """`rows` rows that are in memory together, once `read`; in another `order` than they are kept in, where given."""

    rows: int
    load: Callable[[], HeldRows]
    order: Array | None = None

    def read(self) -> HeldRows:
        """Read the rows."""
        return self.load().reorder(self.order)


class RowSource:
    """The rows of a split that `wanted` marks, with the values of each of `columns`.

    At most `buffer_bytes` of them are in memory: half as a block that is shuffled, the rest as batches that are made
    ahead of training. A source whose rows all fit into the half is read once, and kept.
    """

    def __init__(self, split: Split, columns: Mapping[str, BatchColumn], *, wanted: Bools, buffer_bytes: int) -> None:
        self.rows = int(wanted.sum())
        self.columns, self.buffer_bytes = columns, buffer_bytes
        self._groups = cut_groups(split, wanted, list(columns.values()), min(PIECE_BYTES, buffer_bytes // 4))
        self._bytes = sum(piece.bytes for pieces in self._groups for piece in pieces)
        self._kept: list[Rows] = []
        self._kept_starts: set[int] = set()  # of the pieces that were read, where all rows are to be kept

    @property
    def row_bytes(self) -> int:
        """The bytes of a row in memory, in the mean and at most."""
        return -(-self._bytes // max(1, self.rows))

    @property
    def _fits(self) -> bool:
        return self._bytes <= self.buffer_bytes // 2

    def blocks(self, rng: np.random.Generator | None = None, *, at_once: bool = False) -> Iterator[Block]:
        """Give all rows once, a block at a time: shuffled, or without `rng` in the order of the shards.

        Row groups are drawn whole. Their order, and that of the rows of a block, is all that `rng` draws, whichever
        blocks are read. Rows that fit are one block, shuffled as a whole, unless they take long to read and training is
        to begin `at_once`.
        """
        if self._fits and not (at_once and self._bytes > PIECE_BYTES):
            read = partial(self._load, list(chain.from_iterable(self._groups)), GroupReader())
            yield Block(self.rows, read, None if rng is None else rng.permutation(self.rows))
            return
        order = range(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
        reader = GroupReader()
        first = self.buffer_bytes // 2 if rng is None else PIECE_BYTES
        blocks = list(self._fill((piece for index in order for piece in self._groups[index]), first))
        for pieces, following in zip_longest(blocks, blocks[1:], fillvalue=()):
            rows = sum(len(piece.rows) for piece in pieces)
            read = partial(self._load, pieces, reader, following)
            yield Block(rows, read, None if rng is None else rng.permutation(rows))

    def _fill(self, pieces: Iterable[Piece], most_bytes: int) -> Iterator[list[Piece]]:
        """Put as many pieces together as fit into half of the buffer, one at least; into the first block `most_bytes`.

        Each further one has twice the bytes: so training begins before half of a large buffer is read and encoded.
        """
        block: list[Piece] = []
        filled, most_bytes = 0, min(most_bytes, self.buffer_bytes // 2)
        for piece in pieces:
            if block and filled + piece.bytes > most_bytes:
                yield block
                block, filled, most_bytes = [], 0, min(2 * most_bytes, self.buffer_bytes // 2)
            block.append(piece)
            filled += piece.bytes
        yield block

    def _load(self, pieces: Sequence[Piece], reader: GroupReader, following: Sequence[Piece] = ()) -> HeldRows:
        """Give the rows of some pieces. Where all rows fit, each piece is read once, whichever block it is in."""
        if not self._fits:
            return HeldRows(self._read(pieces, reader, following))
        missing = [piece for piece in pieces if piece.start not in self._kept_starts]
        if missing:
            self._kept += self._read(missing, reader, following)
            self._kept_starts.update(piece.start for piece in missing)
        kept = np.concatenate([part.number for part in self._kept])
        wanted = np.concatenate([piece.rows + piece.start for piece in pieces])
        if np.array_equal(kept, wanted):
            return HeldRows(self._kept)
        by_number = np.argsort(kept)
        return HeldRows(self._kept, by_number[np.searchsorted(kept, wanted, sorter=by_number)])

    def _read(self, pieces: Sequence[Piece], reader: GroupReader, following: Sequence[Piece] = ()) -> list[Rows]:
        """Read some pieces; small ones become one part. Those that follow begin to come, where they are in a store."""
        needed = list_shard_columns(list(self.columns.values()))
        parts: list[Rows] = []
        small: list[Rows] = []
        filled = 0
        for piece, _ in zip(pieces, fetch_ahead([piece.group for piece in pieces], needed), strict=True):
            table = read_piece(reader, piece, needed)
            values = {
                name: column.decode(table, piece.rows, piece.group, piece.start)
                for name, column in self.columns.items()
            }
            small.append(Rows(piece.rows + piece.start, self.columns, values))
            filled += piece.bytes
            if filled >= PIECE_BYTES or piece is pieces[-1]:
                parts.append(join_rows(small))
                small, filled = [], 0
        fetch_soon([piece.group for piece in following], needed)
        return parts


class Cursor:
    """Draws rows from a source without end: each cycle gives every row once, in an order of its own.

    The first cycle begins `at_once`, or not: see RowSource.blocks.
    """

    def __init__(self, source: RowSource, seed: Sequence[int], *, at_once: bool = False) -> None:
        self._source, self._seed, self._at_once = source, list(seed), at_once
        self._cycle = 0
        self._blocks: Iterator[Block] = iter(())
        self._block = Block(0, partial(HeldRows, ()))
        self._held: HeldRows | None = None  # the rows of the block, once it was read
        self._position = 0

    def take(self, count: int) -> Rows:
        """Give the next `count` rows."""
        parts = []
        for start, end in self._advance(count):
            if self._held is None:
                self._held = self._block.read()
            parts.append(self._held.take(start, end))
        return join_rows(parts)

    def skip(self, count: int) -> None:
        """Pass over the next `count` rows. Blocks that they fill are not read."""
        for _ in self._advance(count):
            pass

    def _advance(self, count: int) -> Iterator[tuple[int, int]]:
        """Give the pieces of blocks, one after the other, that the next `count` rows are."""
        while count:
            if self._position == self._block.rows:
                self._held = None  # before the next is read
                self._block, self._position = self._next_block(), 0
            start, self._position = self._position, min(self._block.rows, self._position + count)
            count -= self._position - start
            yield start, self._position

    def _next_block(self) -> Block:
        block = next(self._blocks, None)
        if block is None:
            rng = np.random.default_rng([*self._seed, self._cycle])
            self._blocks = self._source.blocks(rng, at_once=self._at_once and not self._cycle)
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


def count_fitting(parts: Sequence[BatchPart], most: int, copies: int = 1) -> int:
    """Count the batches, one at least and `most` at most, of which a quarter of each source's buffer holds `copies`."""
    shares = [part.source.buffer_bytes // 4 // max(1, copies * part.rows * part.source.row_bytes) for part in parts]
    return min(most, max(1, min(shares, default=most)))


def iterate_batches(
    parts: Sequence[BatchPart],
    steps: int,
    seed: int,
    epoch: int,
    *,
    start: int = 0,
    share: Share | None = None,
) -> Iterator[Batch]:
    """Make the `steps` batches of an epoch, numbered from 1, from batch `start` on, each of rows of every part.

    CHUNK batches are drawn and sorted by length at a time and come in random order, so that texts of like length share
    a batch and yet no epoch goes from short to long; fewer where their rows would take over a quarter of a source's
    buffer. `share` is that of distill.data.columns.BatchColumn.collate.
    """
    rng = np.random.default_rng([seed, epoch])
    chunk = count_fitting(parts, CHUNK)
    at_once = epoch == 1  # later ones find rows in memory
    cursors = [Cursor(part.source, [seed, epoch, index], at_once=at_once) for index, part in enumerate(parts)]
    for done in range(0, steps, chunk):
        count = min(chunk, steps - done)
        order = rng.permutation(count)
        wanted = [
            min(count * part.rows, part.source.rows - done * part.rows) if part.once else count * part.rows
            for part in parts
        ]
        if done + count <= start:
            for rows, cursor in zip(wanted, cursors, strict=True):
                cursor.skip(rows)
            continue
        drawn = [cursor.take(rows) for rows, cursor in zip(wanted, cursors, strict=True)]
        sorted_places = [rows.order_by_length() for rows in drawn]
        for index in order[max(0, start - done) :]:
            pieces = [
                rows.take(places[index * part.rows : (index + 1) * part.rows])
                for part, rows, places in zip(parts, drawn, sorted_places, strict=True)
            ]
            yield join_rows(pieces).collate(share)
