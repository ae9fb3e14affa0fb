"""Records of a fixed width in buckets by a hash: what is too much for a memory is compared a bucket at a time.

Equal hashes are in one bucket, so equal texts, kept rows and equal requests of a hundred million rows are found with
those of one bucket at a time in memory (a hash join of Grace's kind; Kitsuregawa, Tanaka and Moto-oka 1983). A few
stay in memory; more of them go to a file without a name in the folder of temporary files (TMPDIR), in blocks that are
sorted by bucket, and are gone with the process.
"""

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from shared.disk import explain_disk_errors
from shared.errors import DiskError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Hashes: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]

BUCKETS = 256
BLOCK_BYTES = 32 << 20  # that are in memory before they are written


class Buckets:
    """Records of one type, those of a bucket in the order in which they were added.

    The bucket of a record is the first byte of its hash, so all records of a bucket have lower hashes than those of the
    next.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._waiting: list[tuple[Array, Array]] = []  # records, and their buckets
        self._bytes = 0  # that wait
        self._file: IO[bytes] | None = None
        self._starts: list[Array] = []  # of each block in the file, where its buckets start; and its end
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def is_on_disk(self) -> bool:
        """Whether there are so many that they are not all in memory."""
        return self._file is not None

    def add(self, records: Array, hashes: Hashes) -> None:
        """Add some records, each with its hash. Raises DiskError where there is no room for them."""
        if not len(records):
            return
        self._waiting.append((records, (hashes >> np.uint64(56)).astype(np.uint8)))
        self._bytes += records.nbytes
        self._rows += len(records)
        if self._bytes >= BLOCK_BYTES:
            self._write_block()

    def read(self, bucket: int) -> Array:
        """Give the records of a bucket. Raises DiskError where the disk gives back less than was written."""
        parts = [self._read_block(starts, bucket) for starts in self._starts]
        if self._waiting:
            records, owners = self._sort_waiting()
            first, end = np.searchsorted(owners, [bucket, bucket + 1])
            parts.append(records[first:end])
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def read_all(self) -> Array:
        """Give all records, where they are in memory."""
        assert self._file is None, "they are on disk: read a bucket at a time"
        return np.concatenate([records for records, _ in self._waiting]) if self._waiting else np.empty(0, self.dtype)

    def _sort_waiting(self) -> tuple[Array, Array]:
        if len(self._waiting) > 1 or (np.diff(self._waiting[0][1].astype(np.int16)) < 0).any():
            owners = np.concatenate([owners for _, owners in self._waiting])
            order = np.argsort(owners, kind="stable")
            self._waiting = [(np.concatenate([records for records, _ in self._waiting])[order], owners[order])]
        return self._waiting[0]

    def _write_block(self) -> None:
        records, owners = self._sort_waiting()
        start = 0 if not self._starts else int(self._starts[-1][-1])
        with explain_disk_errors(Path(tempfile.gettempdir())):
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            self._file.write(records.view(np.uint8).data)
            self._file.flush()
        self._starts.append(start + np.searchsorted(owners, np.arange(BUCKETS + 1)))
        self._waiting, self._bytes = [], 0

    def _read_block(self, starts: Array, bucket: int) -> Array:
        assert self._file is not None
        first, end = int(starts[bucket]), int(starts[bucket + 1])
        size = self.dtype.itemsize
        content = os.pread(self._file.fileno(), (end - first) * size, first * size)
        if len(content) < (end - first) * size:  # a kept row that is not seen would be paid for again
            raise DiskError(
                f"{tempfile.gettempdir()} gave back less than was written to it: check that disk, or name another "
                "folder with TMPDIR, then run the same command again"
            )
        return np.frombuffer(content, self.dtype)


def join_buckets(*sets: Buckets) -> Iterator[tuple[Array, ...]]:
    """Give what several sets have in each bucket, the lowest hashes first; all at once where all is in memory."""
    if any(one.is_on_disk for one in sets):
        for bucket in range(BUCKETS):
            yield tuple(one.read(bucket) for one in sets)
    else:
        yield tuple(one.read_all() for one in sets)


def find_repeated(hashes: Hashes) -> Hashes:
    """Give the hashes that occur more than once, each once, in their order."""
    ordered = np.sort(hashes)  # np.unique of all would build a table of hashes, at many times the price
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def is_among(hashes: Hashes, others: Hashes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask those of `hashes` that stand among `others`."""
    ordered = np.sort(others)
    if not len(ordered):
        return np.zeros(len(hashes), np.bool_)
    at = np.searchsorted(ordered, hashes)
    at[at == len(ordered)] = 0
    found: np.ndarray[Any, np.dtype[np.bool_]] = ordered[at] == hashes
    return found
