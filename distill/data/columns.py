"""What a batch is made of: named columns, each of which knows how its values come from shards and become tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distill.data.split import Bools, Ints, Split
from shared.shards.read import RowGroup

Array = np.ndarray[Any, Any]
Tensors: TypeAlias = Tensor | dict[str, Tensor]
Share = Callable[[int], Array]  # of a batch of n rows, those that this process computes

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

    def join(self, parts: Sequence[Any]) -> Any:
        """Put values one after the other."""

    def take(self, values: Any, rows: Array) -> Any:
        """Pick the values of some rows, in the order of `rows`."""

    def measure(self, values: Any) -> Array | None:
        """Give the length of each row's value, by which rows are sorted into batches; None where all are alike."""

    def collate(self, values: Any, share: Share | None = None) -> Tensors:
        """Make a batch's tensors: of all rows, or of those that `share` picks where each process needs its own only."""


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


def label_columns(split: Split, *, visible: Bools) -> dict[str, BatchColumn]:
    """Make the columns of a split's labels: TARGET, and LABELLED, true where the label is `visible`."""
    return {TARGET: RowValues(split.target), LABELLED: RowValues(visible)}
