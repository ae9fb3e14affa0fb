"""What a batch is made of: named columns, each of which knows how its values come from shards and become tensors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distill.data.split import Bools, Ints, Split
from shared.shards.read import GroupReader, RowGroup, cut_row_group
from shared.stores.ahead import fetch_ahead

Array = np.ndarray[Any, Any]
Tensors: TypeAlias = Tensor | dict[str, Tensor]
Share = Callable[[int], Array]  # of a batch of n rows, those that this process computes

PIECE_BYTES = 16 << 20  # of a row group that are read at once

TEXT, VECTORS, TARGET, LABELLED, SOFT = "text", "vectors", "target", "labelled", "soft"


class BatchColumn(Protocol):
    """One named column of rows and batches. Its values are of a kind of its own, which only it looks into."""

    @property
    def shard_columns(self) -> tuple[str, ...]:
        """The columns of a shard that `decode` needs; none where the values lie elsewhere."""

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Any:
        """Give the values of some `rows` of a row group, of which `table` has the shard columns.

        `start` is the number of the group's first row in the split. Raises DataError naming a row that has none.
        """

    def count_bytes(self, stored: int, rows: int) -> int:
        """Bound the memory that the values of some rows take, whose shard columns are `stored` bytes in the shards."""

    def join(self, parts: Sequence[Any]) -> Any:
        """Put values one after the other."""

    def take(self, values: Any, rows: Array) -> Any:
        """Pick the values of some rows, in the order of `rows`."""

    def measure(self, values: Any) -> Array | None:
        """Give the length of each row's value, by which rows are sorted into batches; None where all are alike."""

    def collate(self, values: Any, share: Share | None = None) -> Tensors:
        """Make a batch's tensors: of all rows, or of those that `share` picks where each process needs its own only."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that are read together: a row group, or a piece of a large one. `start` is the first one's number."""

    group: RowGroup
    start: int
    rows: Array  # those that are wanted, counted from `start`
    bytes: int  # of memory that their values take at most


def list_shard_columns(columns: Sequence[BatchColumn]) -> tuple[str, ...]:
    """List what has to be read of a shard for some columns, each once."""
    return tuple(dict.fromkeys(name for column in columns for name in column.shard_columns))


def cut_groups(split: Split, wanted: Bools, columns: Sequence[BatchColumn], most_bytes: int) -> list[list[Piece]]:
    """Give each row group that has wanted rows, in pieces of which some columns take at most `most_bytes`."""
    groups = []
    for group, start in zip(split.groups, split.starts(), strict=True):
        if not wanted[start : start + group.rows].any():
            continue
        stored = sum(group.sizes.get(name, 0) for name in list_shard_columns(columns))
        size = max(stored, count_bytes(columns, group, group.rows))
        pieces = []
        for part in cut_row_group(group, max(1, group.rows * most_bytes // max(1, size))):
            first = start + (part.first or 0)
            rows = np.flatnonzero(wanted[first : first + part.rows])
            if len(rows):
                pieces.append(Piece(part, first, rows, count_bytes(columns, part, len(rows))))
        groups.append(pieces)
    return groups


def count_bytes(columns: Sequence[BatchColumn], group: RowGroup, rows: int) -> int:
    """Bound the memory that the values of so many rows of a row group take, and 8 bytes for the number of each."""
    total = 8 * rows
    for column in columns:
        stored = sum(group.sizes.get(name, 0) for name in column.shard_columns)
        total += column.count_bytes(-(-stored * rows // group.rows), rows)
    return total


def read_pieces(split: Split, wanted: Bools, *columns: BatchColumn) -> Iterator[tuple[Piece, pa.Table]]:
    """Read what some columns need of the row groups that have wanted rows, in the order of the shards."""
    return read_groups(cut_groups(split, wanted, columns, PIECE_BYTES), *columns)


def read_groups(groups: Sequence[Sequence[Piece]], *columns: BatchColumn) -> Iterator[tuple[Piece, pa.Table]]:
    """Read what some columns need of some row groups."""
    reader, names = GroupReader(), list_shard_columns(columns)
    pieces = list(chain.from_iterable(groups))
    for piece, _ in zip(pieces, fetch_ahead([piece.group for piece in pieces], names), strict=True):
        yield piece, read_piece(reader, piece, names)


def read_piece(reader: GroupReader, piece: Piece, names: Sequence[str]) -> pa.Table:
    """Read some columns of a piece; nothing where none is needed."""
    return reader.read(piece.group, names) if names else pa.table({})


class ArrayColumn(ABC):
    """A column whose values are an array with an entry a row."""

    __slots__ = ()

    @property
    def shard_columns(self) -> tuple[str, ...]:
        """None, unless a column says so."""
        return ()

    @abstractmethod
    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Array:
        """Give the values of some rows: see BatchColumn."""

    def count_bytes(self, stored: int, rows: int) -> int:
        """Bound the memory of some rows: what the shards hold of them, or 8 bytes each. See BatchColumn."""
        return max(stored, 8 * rows)

    def join(self, parts: Sequence[Array]) -> Array:
        """Put values one after the other."""
        return np.concatenate(parts)

    def take(self, values: Array, rows: Array) -> Array:
        """Pick the values of some rows."""
        return np.asarray(values[rows])

    def measure(self, values: Array) -> Array | None:
        """Say that all are alike."""
        return None

    def collate(self, values: Array, share: Share | None = None) -> Tensors:
        """Make a tensor of all rows."""
        return torch.from_numpy(values)


@dataclass(frozen=True, slots=True)
class RowValues(ArrayColumn):
    """Values that are in memory: row i of the split has values[place[i]], or without a `place` values[i]."""

    values: Array
    place: Ints | None = None

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Array:
        """Give the values of some rows: see BatchColumn."""
        numbers = rows + start
        return np.asarray(self.values[numbers if self.place is None else self.place[numbers]])

    def count_bytes(self, stored: int, rows: int) -> int:
        """Count the bytes of some rows' values."""
        return rows * int(self.values.itemsize * math.prod(self.values.shape[1:]))


def label_columns(split: Split, *, visible: Bools) -> dict[str, BatchColumn]:
    """Make the columns of a split's labels: TARGET, and LABELLED, true where the label is `visible`."""
    return {TARGET: RowValues(split.target), LABELLED: RowValues(visible)}
