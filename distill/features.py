"""The teacher's vectors h_t, as they lie in the shards, and their mean and deviation."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from distill.split import Split, describe_row
from shared.errors import DataError
from shared.shards.read import RowGroup, read_row_group

Array = np.ndarray[Any, Any]

LOG_FLOOR = -16.0  # natural log of a probability of 1e-7: below it lies what a float32 endpoint cannot tell from 0
COLUMNS = {"embedding": ("embedding",), "label_logprobs": ("label_logprobs", "residual_mass")}


@dataclass(frozen=True, slots=True)
class Vectors:
    """Where h_t comes from: `embedding`, or the label log-probabilities and the log of the residual mass."""

    source: Literal["embedding", "label_logprobs"]
    width: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a shard that hold them."""
        return COLUMNS[self.source]


def find_vectors(split: Split) -> Vectors:
    """What the answered rows of a split hold: `embedding` if their first has one, else `label_logprobs`.

    Raises DataError where it has neither.
    """
    for group, start in zip(split.groups, split.starts(), strict=True):
        rows = np.flatnonzero(split.answered[start : start + group.rows])
        if len(rows):
            row = int(rows[0])
            table = read_row_group(group, ["embedding", "label_logprobs"])
            if (vector := table["embedding"][row].values) is not None:
                return Vectors("embedding", len(vector))
            if (logprobs := table["label_logprobs"][row].values) is not None:
                return Vectors("label_logprobs", len(logprobs) + 1)
            raise DataError(
                f"{describe_row(group, row)} has neither an embedding nor label_logprobs: its teacher gave nothing to "
                "distil from. Ask one that does, or train with --loss none --alpha 0"
            )
    raise DataError(f"the split {split.name} has no row with an answer (status ok); see: harvest status")


def decode_vectors(table: pa.Table, rows: Array, vectors: Vectors, group: RowGroup) -> Array:
    """h_t of some rows of a row group's table, shape (n, width), in the type that they are kept in.

    Raises DataError naming a row that has none, or one of another width.
    """
    if vectors.source == "embedding":
        return _decode_lists(table["embedding"], rows, vectors.width, "embedding", group)
    logprobs = _decode_lists(table["label_logprobs"], rows, vectors.width - 1, "label_logprobs", group)
    residual = table["residual_mass"].take(pa.array(rows)).fill_null(0).to_numpy()[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_residual = np.log(residual)
    logs: Array = np.maximum(np.concatenate([logprobs, log_residual], axis=1), LOG_FLOOR)
    return logs.astype(np.float32)


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


def measure_vectors(split: Split, vectors: Vectors) -> tuple[Array, Array]:
    """Mean and standard deviation, float32 (width,), over the answered rows; a constant dimension has deviation 1.

    One pass, a row group at a time. Raises DataError naming the row for a vector that is not finite.
    """
    count = 0
    mean = np.zeros(vectors.width)
    squares = np.zeros(vectors.width)
    for group, start in zip(split.groups, split.starts(), strict=True):
        rows = np.flatnonzero(split.answered[start : start + group.rows])
        if not len(rows):
            continue
        block = decode_vectors(read_row_group(group, vectors.columns), rows, vectors, group).astype(np.float64)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{describe_row(group, int(rows[np.argmin(finite)]))} has a vector that is not finite "
                f"(column {vectors.source}, NaN or infinity)"
            )
        # Chan, Golub and LeVeque (1979): merging the moments of two sets
        block_mean = block.mean(axis=0)
        difference = block_mean - mean
        total = count + len(rows)
        squares += ((block - block_mean) ** 2).sum(axis=0) + difference**2 * (count * len(rows) / total)
        mean += difference * (len(rows) / total)
        count = total
    deviation = np.sqrt(squares / count)
    deviation[deviation < 1e-6] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)
