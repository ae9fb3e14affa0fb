"""The teacher's vectors h_t, as they lie in the shards, and their mean and deviation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch

from distill.compute.processes import Processes
from distill.config import Column
from distill.data.columns import (
    PIECE_BYTES,
    Array,
    ArrayColumn,
    BatchColumn,
    Piece,
    Share,
    Tensors,
    cut_groups,
    read_groups,
)
from distill.data.moments import Moments, measure_error
from distill.data.split import Ints, Split, describe_row
from shared.console import say
from shared.errors import DataError
from shared.shards.read import GroupReader, RowGroup, cut_row_group

Stored = Literal["embedding", "label_logprobs"]

LOG_FLOOR = -16.0  # natural log of a probability of 1e-7: below it lies what a float32 endpoint cannot tell from 0
SAMPLE_ROWS, SAMPLE_BYTES = 100_000, 4_000_000_000  # whose vectors are measured, about
GROUPS = 8  # random groups of a sample, by whose differences its error is measured
_LOOKED_AT = 64  # rows, to see what the first one of them has
_ROUNDING = 1e-5  # a sum of probabilities in float32 may miss 1 by as much
COLUMNS: dict[Stored, tuple[str, ...]] = {
    "embedding": ("embedding",),
    "label_logprobs": ("label_logprobs", "residual_mass"),
}


class VectorColumn(BatchColumn, Protocol):
    """Where h_t comes from: a column of vectors, decoded to arrays (n, width) in the type that they are kept in."""

    @property
    def width(self) -> int:
        """Numbers in h_t."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Those of the parts that h_t is made of, one after the other."""


class ArrayVectors(ArrayColumn):
    """A column of vectors, (n, width), which become float32 in a batch."""

    __slots__ = ()

    def collate(self, values: Array, share: Share | None = None) -> Tensors:
        """Make a tensor of all rows: the aligner reads them in every process."""
        return torch.from_numpy(values.astype(np.float32))


@dataclass(frozen=True, slots=True)
class StoredVectors(ArrayVectors):
    """A column of the shards: `embedding`, or the label log-probabilities and the log of the residual mass."""

    source: Stored
    width: int

    @property
    def widths(self) -> tuple[int, ...]:
        """One part."""
        return (self.width,)

    @property
    def shard_columns(self) -> tuple[str, ...]:
        """The columns of a shard that hold them."""
        return COLUMNS[self.source]

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Array:
        """Give the vectors of some rows: see BatchColumn. A residual that is not given is what the labels leave."""
        if self.source == "embedding":
            vectors = _decode_lists(table["embedding"], rows, self.width, "embedding", group)
            _check_finite(vectors, rows, group)
            return vectors
        logprobs = _decode_lists(table["label_logprobs"], rows, self.width - 1, "label_logprobs", group)
        given = table["residual_mass"].take(pa.array(rows)).to_numpy()  # NaN where it is null
        left = 1 - np.exp(logprobs.astype(np.float64)).sum(axis=1)
        left = np.where(left < _ROUNDING, 0, left)
        residual = np.where(np.isnan(given), left, given)[:, None]
        with np.errstate(divide="ignore"):
            log_residual = np.log(np.maximum(residual, 0))
        logs: Array = np.maximum(np.concatenate([logprobs, log_residual], axis=1), LOG_FLOOR)
        _check_finite(logs, rows, group)
        return logs.astype(np.float32)

    def count_bytes(self, stored: int, rows: int) -> int:
        """Bound the memory of some vectors: see BatchColumn."""
        return max(stored, rows * self.width * (2 if self.source == "embedding" else 4))


@dataclass(frozen=True, slots=True)
class ShardVectors(ArrayVectors):
    """Vectors that lie beside the shards: an array (rows, width) for each shard's file, NaN in a row that has none."""

    name: str
    width: int
    arrays: Mapping[Path, Array]
    offsets: Mapping[tuple[Path, int], int]  # of a row group's first row in its shard

    @property
    def widths(self) -> tuple[int, ...]:
        """One part."""
        return (self.width,)

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Array:
        """Give the vectors of some rows: see BatchColumn."""
        found = self.arrays[group.path][rows + self.offsets[group.path, group.index] + (group.first or 0)]
        missing = np.isnan(found).all(axis=1)
        if missing.any():
            raise DataError(f"{describe_row(group, int(rows[np.argmax(missing)]))} has no {self.name}")
        _check_finite(found, rows, group)
        return np.asarray(found)

    def count_bytes(self, stored: int, rows: int) -> int:
        """Count the bytes of some vectors."""
        return rows * self.width * next(iter(self.arrays.values())).itemsize


@dataclass(frozen=True, slots=True)
class KeptVectors(ArrayVectors):
    """Vectors in an array of their own: row i of the split has array[place[i]]."""

    widths: tuple[int, ...]
    array: Array
    place: Ints

    @property
    def width(self) -> int:
        """Numbers in h_t."""
        return sum(self.widths)

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Array:
        """Give the vectors of some rows: see BatchColumn."""
        return np.asarray(self.array[self.place[rows + start]])

    def count_bytes(self, stored: int, rows: int) -> int:
        """Count the bytes of some vectors."""
        return rows * self.width * self.array.itemsize


@dataclass(frozen=True, slots=True)
class JoinedVectors(ArrayVectors):
    """Several one after the other, as one wide vector."""

    parts: tuple[VectorColumn, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Those of all parts."""
        return tuple(width for part in self.parts for width in part.widths)

    @property
    def width(self) -> int:
        """Their sum."""
        return sum(self.widths)

    @property
    def shard_columns(self) -> tuple[str, ...]:
        """Those of all parts, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.shard_columns))

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Array:
        """Give the vectors of some rows: see BatchColumn."""
        return np.concatenate([part.decode(table, rows, group, start) for part in self.parts], axis=1)

    def count_bytes(self, stored: int, rows: int) -> int:
        """Bound the memory of some vectors: 4 bytes a number."""
        return 4 * rows * self.width


def join_vectors(parts: Sequence[VectorColumn]) -> VectorColumn:
    """Put several one after the other; leave a single one as it is."""
    return parts[0] if len(parts) == 1 else JoinedVectors(tuple(parts))


def find_vectors(split: Split) -> StoredVectors:
    """Find what a split's answered rows hold: `embedding` if their first has one, else `label_logprobs`.

    Raises DataError where it has neither.
    """
    group, row, table = read_first(split, ["embedding", "label_logprobs"])
    for source in COLUMNS:
        if (vectors := _find_column(table, row, source)) is not None:
            return vectors
    raise DataError(
        f"{describe_row(group, row)} has neither an embedding nor label_logprobs: its teacher gave nothing to "
        "distil from. Ask one that does, take its words with --vectors reply, or train with --loss none --alpha 0"
    )


def has_column(split: Split, column: Column) -> bool:
    """Tell whether the first answered row of a split has something in a column."""
    _, row, table = read_first(split, [column])
    return bool(table[column].is_valid()[row].as_py())


def find_column(split: Split, column: Column) -> StoredVectors:
    """Find a column of numbers of a split's answered rows. Raises DataError where their first has none."""
    group, row, table = read_first(split, [column])
    vectors = None if column == "reply" else _find_column(table, row, column)
    if vectors is None:
        raise DataError(
            f"{describe_row(group, row)} has no {column}: its teacher gave none. See what it gave with: harvest show; "
            "and choose with --vectors"
        )
    return vectors


def read_first(split: Split, columns: Sequence[str]) -> tuple[RowGroup, int, pa.Table]:
    """Find the first answered row of a split: a piece of its row group, its place there, and the piece's table.

    Raises DataError where there is none.
    """
    for group, start in zip(split.groups, split.starts(), strict=True):
        rows = np.flatnonzero(split.answered[start : start + group.rows])
        if len(rows):
            piece = cut_row_group(group, _LOOKED_AT)[int(rows[0]) // _LOOKED_AT]
            return piece, int(rows[0]) % _LOOKED_AT, GroupReader().read(piece, columns)
    raise DataError(f"the split {split.name} has no row with an answer (status ok); see: harvest status")


def _find_column(table: pa.Table, row: int, source: Stored) -> StoredVectors | None:
    values = table[source][row].values
    if values is None:
        return None
    return StoredVectors(source, len(values) + (source == "label_logprobs"))  # and the residual


def _decode_lists(column: pa.ChunkedArray, rows: Array, width: int, name: str, group: RowGroup) -> Array:
    lists = column.take(pa.array(rows)).combine_chunks()
    lengths = lists.value_lengths().fill_null(-1).to_numpy()
    if (lengths != width).any():
        row = int(np.argmax(lengths != width))
        what = f"no {name}" if lengths[row] < 0 else f"{name} of {lengths[row]} numbers"
        raise DataError(
            f"{describe_row(group, int(rows[row]))} has {what}, where others have {width}; run: harvest verify"
        )
    values: Array = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(rows), width)


def _check_finite(vectors: Array, rows: Array, group: RowGroup) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{describe_row(group, int(rows[np.argmin(finite)]))} has a vector that is not finite (NaN or infinity). "
            "Harvest it again, or have that teacher's vectors left out with --vectors"
        )


def iterate_vectors(split: Split, vectors: VectorColumn) -> Iterator[Array]:
    """Give the answered rows' vectors, in the order of the shards, a row group or a piece of one at a time."""
    return (block for _, block in iterate_share(split, vectors, Processes()))


def iterate_share(split: Split, vectors: VectorColumn, processes: Processes) -> Iterator[tuple[int, Array]]:
    """Give the answered rows' vectors of this process's row groups, each with its first one's place among all."""
    place = 0
    places, own = [], []
    for index, pieces in enumerate(cut_groups(split, split.answered, [vectors], PIECE_BYTES)):
        for piece in pieces:
            if index % processes.count == processes.rank:
                places.append(place)
                own.append(piece)
            place += len(piece.rows)
    for place, (piece, table) in zip(places, read_groups([own], vectors), strict=True):
        yield place, vectors.decode(table, piece.rows, piece.group, piece.start)


def make_scratch(folder: Path, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Make an array in a nameless file in `folder`: memory does not grow with it, and no end of the run leaves it."""
    path = folder / f"scratch-{uuid4().hex}.npy"  # one a process
    array: Array = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
    path.unlink()  # the mapping keeps its bytes
    return array


@dataclass(frozen=True, slots=True)
class VectorSample:
    """The answered rows of a split whose vectors are measured: all of them, or those of random row groups."""

    groups: Sequence[Sequence[Piece]]
    rows: int
    share: float  # of all answered rows

    def iterate(self, vectors: VectorColumn) -> Iterator[Array]:
        """Give their vectors, a row group or a piece of one at a time."""
        for piece, table in read_groups(self.groups, vectors):
            yield vectors.decode(table, piece.rows, piece.group, piece.start)


def choose_sample(split: Split, vectors: VectorColumn) -> VectorSample:
    """Choose the row groups whose vectors are measured.

    All of them, where they have no more than SAMPLE_ROWS rows or SAMPLE_BYTES. Else so many that they have one or the
    other, the same ones in every run, but not fewer than GROUPS.
    """
    groups = cut_groups(split, split.answered, [vectors], PIECE_BYTES)
    answered = int(split.answered.sum())
    chosen: list[int] = []
    rows = size = 0
    for index in np.random.default_rng(0).permutation(len(groups)):
        if len(chosen) >= GROUPS and (rows >= SAMPLE_ROWS or size >= SAMPLE_BYTES):
            break
        chosen.append(index)
        rows += sum(len(piece.rows) for piece in groups[index])
        size += sum(piece.bytes for piece in groups[index])
    return VectorSample([groups[index] for index in sorted(chosen)], rows, rows / max(1, answered))


def measure_vectors(split: Split, vectors: VectorColumn) -> tuple[Array, Array]:
    """Measure mean and deviation, float32 (width,), over the answered rows; constant dimensions have deviation 1.

    Where h_t has several parts, the deviations of part k of K are multiplied by sqrt(K width_k / width): so the parts
    count the same, however wide they are, and the mean variance over all dimensions stays 1.

    Of a large split they are those of a sample, and the standard error is said: see choose_sample. One pass, a row
    group at a time. Raises DataError, naming the row, for a vector that is not finite, and where all rows have one
    vector.
    """
    moments = _measure_sample(split, vectors, choose_sample(split, vectors))
    mean, deviation = moments.mean, moments.deviation
    constant = deviation < 1e-6
    if constant.all() and moments.count > 1:
        raise DataError(
            f"the teacher gave all {moments.count:,} rows of the split {split.name} the same vector: there is nothing "
            "to learn from it. Look at rows with: harvest show"
        )
    deviation[constant] = 1.0
    parts = np.repeat(vectors.widths, vectors.widths)
    deviation *= np.sqrt(len(vectors.widths) * parts / vectors.width)
    return mean.astype(np.float32), deviation.astype(np.float32)


def _measure_sample(split: Split, vectors: VectorColumn, sample: VectorSample) -> Moments:
    """Measure a sample; where it is not all there is, say how sure that is."""
    moments = Moments(vectors.width)
    if sample.share == 1:
        for block in sample.iterate(vectors):
            moments.add(block)
        return moments
    groups = [Moments(vectors.width) for _ in range(GROUPS)]
    owners = [index % GROUPS for index, pieces in enumerate(sample.groups) for _ in pieces]
    for owner, block in zip(owners, sample.iterate(vectors), strict=True):
        groups[owner].add(block)
    for each in groups:
        moments.merge(each)
    error = measure_error(groups, sample.share)
    say(
        f"mean and deviation of the teacher's vectors are those of {sample.rows:,} of the split {split.name}'s "
        f"{int(split.answered.sum()):,} rows: the standard error of a mean is {error.mean:.2g} deviations, that of a "
        f"deviation {error.deviation:.2g} of it"
    )
    return moments


def rank_answered(split: Split) -> Ints:
    """Give each row's place among the answered ones; it means nothing for the others."""
    place: Ints = np.maximum(np.cumsum(split.answered) - 1, 0)
    return place
