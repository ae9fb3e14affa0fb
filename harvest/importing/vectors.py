"""Files of vectors, memory-mapped: .npy, .safetensors, and Parquet, whose vectors are first written to a scratch file.

A row of a file is a vector of floats. Whatever is none is refused by name, before a row is kept: a pickled or truncated
file, another number of dimensions, rows of several widths, integers, NaN and infinity.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harvest.importing.match import NOWHERE, Ints
from shared.console import say, track
from shared.errors import DataError
from shared.schema import Answer, Status
from shared.suggestions import suggest

Array: TypeAlias = np.ndarray[Any, Any]

BLOCK_BYTES = 16 << 20
_MOST_HEADER = 100 << 20  # of a safetensors file, as its library has it
_SAFETENSORS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of a file, (rows, width), on disk. `present` is false for a row that has none (None: all have one).

    `is_bfloat16` is whether the numbers are bfloat16, as bits.
    """

    array: Array
    present: np.ndarray[Any, np.dtype[np.bool_]] | None = None
    is_bfloat16: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which they are kept: float16, or float32, which holds bfloat16 as it is."""
        return np.dtype(np.float16 if self.array.dtype == np.float16 else np.float32)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as it is kept."""
        return int(self.array.shape[1]) * self.dtype.itemsize

    def read(self, numbers: Ints) -> list[Answer]:
        """Give the answers of rows by their numbers: unasked, where a number is NOWHERE or the row has no vector."""
        there = numbers != NOWHERE
        if self.present is not None:
            there &= self.present[np.where(there, numbers, 0)]
        found = iter(self._take(numbers[there]))
        return [
            Answer(Status.OK, embedding=next(found), cost_usd=None) if known else Answer(Status.UNASKED)
            for known in there
        ]

    def _take(self, numbers: Ints | slice) -> Array:
        taken = np.asarray(self.array[numbers])
        if self.is_bfloat16:
            return (taken.astype(np.uint32) << 16).view(np.float32)
        return taken.astype(self.dtype, copy=False)

    def check_finite(self, file: str) -> None:
        """Raise DataError where a number is NaN or infinite, also where it is so only in float32."""
        rows = max(1, BLOCK_BYTES // max(1, self.row_bytes))
        wrong: list[int] = []
        with track(f"checking {Path(file).name}", len(self.array)) as tracker, np.errstate(over="ignore"):
            for start in range(0, len(self.array), rows):
                block = self._take(slice(start, start + rows))
                bad = ~np.isfinite(block).all(axis=1)
                if self.present is not None:
                    bad &= self.present[start : start + rows]
                wrong += (np.flatnonzero(bad) + start).tolist()
                tracker.advance(len(block))
        if wrong:
            raise DataError(
                f"{file}, row {wrong[0]}: the vector holds NaN or infinity, as {len(wrong):,} of {len(self.array):,} "
                "rows do. Leave those rows out, with the ids of the others (--ids)"
            )


def open_vectors(path: Path, column: str | None, work: Path) -> Vectors:
    """Open a file of vectors. `column` is a Parquet column, or a tensor's name; `work` is a folder for scratch files.

    Raises DataError for what is no vectors, by name.
    """
    name = path.name.lower()
    if name.endswith(".npy"):
        vectors = Vectors(_open_npy(path))
    elif name.endswith(".safetensors"):
        vectors = _open_safetensors(path, column)
    elif name.endswith(".parquet"):
        vectors = _read_parquet(path, column, work)
    else:
        raise DataError(f"{path}: vectors are read from .npy, .parquet and .safetensors; of a .npz file save one array")
    _check_shape(path, vectors)
    vectors.check_finite(str(path))
    return vectors


def _check_shape(path: Path, vectors: Vectors) -> None:
    array = vectors.array
    if array.ndim != 2:
        raise DataError(
            f"{path} has the shape {'x'.join(map(str, array.shape)) or 'of one number'}; vectors are rows x width: "
            "pool or reshape them first"
        )
    if not array.size:
        raise DataError(f"{path} is empty: {array.shape[0]} rows of {array.shape[1]} numbers")
    if not (vectors.is_bfloat16 or np.issubdtype(array.dtype, np.floating)):
        raise DataError(f"{path} holds {array.dtype}, not vectors of floats: are these token ids, or labels?")
    if array.dtype.itemsize > 4:
        say(f"{path}: {array.dtype} is kept as float32")


def load_npy(path: Path) -> Array:
    """Map an array into memory. Raises DataError for a pickled, truncated or other file."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, EOFError, OSError) as error:
        if any(word in str(error) for word in ("pickle", "Python objects", "Object arrays")):
            why = "it is pickled, and loading a pickle can run any program. Save it as an array of floats: np.save"
        else:
            why = f"it is truncated, or no .npy file ({error})"
        raise DataError(f"{path} cannot be read: {why}") from None


def _open_npy(path: Path) -> Array:
    array = load_npy(path)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of several arrays (.npz): save one of them with np.save")
    return array


# --- safetensors ---


def _open_safetensors(path: Path, name: str | None) -> Vectors:
    """Map a tensor: the format is a length, a JSON header, the numbers (https://huggingface.co/docs/safetensors)."""
    size = path.stat().st_size
    broken = DataError(f"{path} is truncated, or no .safetensors file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_MOST_HEADER, size - 8):
            raise broken
        try:
            header = json.loads(file.read(length))
            tensors = {key: value for key, value in header.items() if key != "__metadata__"}
            found = _choose(path, "tensor", {key: len(value["shape"]) == 2 for key, value in tensors.items()}, name)
            kind, shape = tensors[found]["dtype"], tuple(map(int, tensors[found]["shape"]))
            start, end = map(int, tensors[found]["data_offsets"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise broken from None
    if kind not in _SAFETENSORS:
        raise DataError(f"{path}: the tensor {found} is of {kind}, not of floats: save it as float16 or float32")
    dtype = _SAFETENSORS[kind]
    if min(shape, default=0) < 0 or end - start != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise broken
    if not (0 <= start <= end <= size - 8 - length):
        raise broken
    if start == end:
        return Vectors(np.zeros(shape, np.float32))
    return Vectors(np.memmap(path, dtype, "r", 8 + length + start, shape), is_bfloat16=kind == "BF16")


def _choose(path: Path, what: str, fitting: dict[str, bool], name: str | None) -> str:
    """Choose a column or tensor: the one that is named, or the only one that fits."""
    if name is not None:
        if name not in fitting:
            raise DataError(f"{path} has no {what} {name!r}; {suggest(name, fitting)}")
        return name
    able = [one for one, fits in fitting.items() if fits]
    if len(able) != 1:
        raise DataError(
            f"{path} has {len(able) or 'no'} {what}s of vectors ({', '.join(able or fitting) or 'none'}): name "
            "the one with --column"
        )
    return able[0]


# --- Parquet ---


def _read_parquet(path: Path, column: str | None, work: Path) -> Vectors:
    """Write the lists of a column to a scratch file, in the type that they have, a row group at a time."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
            schema = file.schema_arrow
            kinds = {field.name: _find_item(field.type) for field in schema}
            found = _choose(path, "column", {name: kind is not None for name, kind in kinds.items()}, column)
            kind = kinds[found]
            if kind is None:
                raise DataError(f"{path}: the column {found!r} holds {schema.field(found).type}, not vectors of floats")
            rows = file.metadata.num_rows
            blocks = _read_lists(path, file, found)
            with track(f"reading {path.name}", rows) as tracker:
                return _spill(path, blocks, rows, np.dtype(kind.to_pandas_dtype()), work, tracker.advance)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is truncated, broken, or no Parquet file: {error}") from None


def _find_item(kind: pa.DataType) -> pa.DataType | None:
    """The type of the floats of a list; None of anything else."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    return kind.value_type if pa.types.is_floating(kind.value_type) else None


def _read_lists(path: Path, file: pq.ParquetFile, column: str) -> Iterator[tuple[int, pa.Array]]:
    """The lists of a column, some rows at a time, each with the number of its first row."""
    size = sum(file.metadata.row_group(index).total_byte_size for index in range(file.num_row_groups))
    rows = max(1, min(1 << 16, BLOCK_BYTES * file.metadata.num_rows // max(1, size)))
    start = 0
    for batch in file.iter_batches(rows, columns=[column], use_threads=False):
        if batch.num_rows:
            yield start, batch.column(0)
        start += batch.num_rows


def _spill(
    path: Path, blocks: Iterator[tuple[int, pa.Array]], rows: int, dtype: np.dtype[Any], work: Path, advance: Any
) -> Vectors:
    array: Array | None = None
    present = np.zeros(rows, np.bool_)
    for start, lists in blocks:
        lengths = lists.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
        there = lengths >= 0
        present[start : start + len(lists)] = there
        advance(len(lists))
        if not there.any():
            continue
        width = int(lengths[there][0]) if array is None else array.shape[1]
        if (lengths[there] != width).any():
            row = int(np.flatnonzero(there & (lengths != width))[0])
            raise DataError(f"{path}, row {start + row}: a vector of {lengths[row]} numbers, where others have {width}")
        if not width:
            raise DataError(f"{path}, row {start}: a vector of no numbers")
        if array is None:
            scratch = work / f"{path.stem}.npy"
            array = np.lib.format.open_memmap(scratch, "w+", dtype=dtype, shape=(rows, width))
        values = lists.drop_null().flatten()
        if values.null_count:
            raise DataError(f"{path}, rows from {start} on: a vector has gaps (null) in it")
        array[start : start + len(lists)][there] = values.to_numpy(zero_copy_only=False).reshape(-1, width)
    if array is None:
        raise DataError(f"{path} has no row with a vector")
    return Vectors(array, None if present.all() else present)
