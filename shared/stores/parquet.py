"""Parquet files that are read where they lie: on this disk as ever, in an object store by ranges.

Of a row group the chunks of those columns are fetched that are asked for, all at once, before pyarrow decodes them.
"""

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.stores.mirror import RemoteFile, find_remote
from shared.stores.ranges import Range, open_range_cache

_FOOTER = 64 << 10  # bytes at the end that pyarrow reads first


def open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    """Open a shard, wherever it lies. Raises FileNotFoundError where it is nowhere, and else as pq.ParquetFile does."""
    remote = find_remote(path)
    if remote is None:
        with suppress(FileNotFoundError):
            return pq.ParquetFile(path, **options)
        remote = find_remote(path)  # another worker has uploaded it just now
    if remote is None or remote.listed is None:
        raise FileNotFoundError(path)
    return _RemoteParquet(remote, **options)


def is_remote(path: Path) -> bool:
    """Tell whether a shard is in an object store, and not on this disk."""
    return find_remote(path) is not None


def fetch_footers(paths: Sequence[Path]) -> None:
    """Bring the ends of shards in a store to the cache of pieces, several at once."""
    remotes = [remote for path in paths if (remote := find_remote(path)) is not None and remote.listed is not None]
    open_range_cache().fetch_each([(remote, _find_footer(remote)) for remote in remotes])


def _find_footer(remote: RemoteFile) -> Range:
    size = 0 if remote.listed is None else remote.listed.size
    return max(0, size - _FOOTER), size


def fetch_row_group(path: Path, index: int, columns: Sequence[str]) -> None:
    """Bring some columns of a row group in a store to the cache of pieces, from where they are read next."""
    remote = find_remote(path)
    if remote is not None and remote.listed is not None:
        with _RemoteParquet(remote) as file:
            open_range_cache().fetch(remote, find_chunks(file.metadata, index, columns))


class _RangeReader(io.RawIOBase):
    """A file-like object over an object: what was fetched is read from memory, and anything else is fetched then."""

    def __init__(self, remote: RemoteFile) -> None:
        assert remote.listed is not None
        self._remote, self._size = remote, remote.listed.size
        self._position = 0
        self._footer: bytes | None = None
        self._starts: list[int] = []
        self._held: list[bytes] = []

    def hold(self, ranges: Sequence[Range]) -> None:
        """Fetch some ranges, and hold them in memory in place of those before."""
        self.release()
        wanted = sorted(set(ranges))
        self._held = open_range_cache().read(self._remote, wanted)
        self._starts = [start for start, _ in wanted]

    def release(self) -> None:
        """Hold nothing."""
        self._starts, self._held = [], []

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, as files do."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read up to so many bytes, and all that are left unless told otherwise."""
        start = self._position
        end = self._size if size is None or size < 0 else min(self._size, start + size)
        if end <= start:
            return b""
        self._position = end
        at = bisect_right(self._starts, start) - 1
        if at >= 0 and end <= self._starts[at] + len(self._held[at]):
            return self._held[at][start - self._starts[at] : end - self._starts[at]]
        footer = _find_footer(self._remote)
        if start >= footer[0]:
            if self._footer is None:
                (self._footer,) = open_range_cache().read(self._remote, [footer])
            return self._footer[start - footer[0] : end - footer[0]]
        return open_range_cache().read(self._remote, [(start, end)])[0]


class _RemoteParquet(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """A Parquet file in a store. Of its methods that read rows, those that the readers of shards use fetch first."""

    def __init__(self, remote: RemoteFile, **options: Any) -> None:
        self._ranges = _RangeReader(remote)
        # Not buffered ahead by pyarrow: it would read what lies between two chunks along.
        super().__init__(self._ranges, **{**options, "pre_buffer": False})

    def read_row_group(self, i: int, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        """Read a row group as pq.ParquetFile does."""
        self._ranges.hold(find_chunks(self.metadata, i, columns))
        try:
            return super().read_row_group(i, columns=columns, **options)
        finally:
            self._ranges.release()

    def iter_batches(
        self,
        batch_size: int = 65536,
        row_groups: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        **options: Any,
    ) -> Iterator[pa.RecordBatch]:
        """Read row groups in batches as pq.ParquetFile does."""
        groups = range(self.num_row_groups) if row_groups is None else row_groups
        self._ranges.hold([chunk for group in groups for chunk in find_chunks(self.metadata, group, columns)])
        yield from super().iter_batches(batch_size, row_groups=row_groups, columns=columns, **options)


def find_chunks(metadata: pq.FileMetaData, group: int, columns: Sequence[str] | None) -> list[Range]:
    """Find where the bytes of some columns of a row group lie in their file; of all columns where it is None."""
    described = metadata.row_group(group)
    chunks = []
    for number in range(described.num_columns):
        chunk = described.column(number)
        if columns is None or chunk.path_in_schema.partition(".")[0] in columns:
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            chunks.append((start, start + chunk.total_compressed_size))
    return chunks
