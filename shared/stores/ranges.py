"""Pieces of objects, read by ranges and kept on this disk up to a bound: what was read longest ago goes first.

A piece is kept under its object's address and version, so one that changed is read anew. Behind its bytes stands a hash
of them: a piece that a power loss cut is read again.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import blake2b, sha256
from pathlib import Path
from threading import Lock

from shared.stores.client import Bucket, open_bucket
from shared.stores.mirror import RemoteFile
from shared.stores.places import readers_place

MOST_BYTES = 10 << 30  # of pieces that are kept
_LEFT = 0.9  # of that, once room was made
_AT_ONCE = 16  # requests
_HASH_BYTES = 16

Range = tuple[int, int]


class RangeCache:
    """Reads pieces of objects, each once as long as there is room for it."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most = folder, most_bytes
        self._used: int | None = None
        self._lock = Lock()

    def read(self, file: RemoteFile, ranges: Sequence[Range]) -> list[bytes]:
        """Read some pieces (start, end) of an object; those that lie side by side in one request, several at once."""
        folder = self._folder / _name(file)
        found = {each: self._find(folder, each) for each in dict.fromkeys(ranges)}
        fetched = self._fetch(file, folder, [each for each, content in found.items() if content is None])
        return [content if (content := found[each]) is not None else fetched[each] for each in ranges]

    def fetch(self, file: RemoteFile, ranges: Sequence[Range]) -> None:
        """Keep some pieces (start, end) of an object that are not kept yet."""
        folder = self._folder / _name(file)
        self._fetch(file, folder, [each for each in dict.fromkeys(ranges) if not (folder / _spell(each)).exists()])

    def fetch_each(self, pieces: Sequence[tuple[RemoteFile, Range]]) -> None:
        """Keep a piece of each of several objects, if it is not kept yet."""
        missing = [(file, each) for file, each in pieces if not (self._folder / _name(file) / _spell(each)).exists()]
        list(_pool().map(self._fetch_one, missing))

    def _fetch_one(self, piece: tuple[RemoteFile, Range]) -> None:
        self.fetch(piece[0], [piece[1]])

    def _fetch(self, file: RemoteFile, folder: Path, missing: Sequence[Range]) -> dict[Range, bytes]:
        found: dict[Range, bytes] = {}
        runs = _join_touching(sorted(missing))
        contents = _read_runs(open_bucket(file.address), file.address.path, runs) if runs else []
        for content, run in zip(contents, runs, strict=True):
            for start, end in run:
                found[start, end] = content[start - run[0][0] : end - run[0][0]]
                self._keep(folder, (start, end), found[start, end])
        return found

    def _find(self, folder: Path, piece: Range) -> bytes | None:
        path = folder / _spell(piece)
        with suppress(OSError):
            stored = path.read_bytes()
            content, digest = stored[:-_HASH_BYTES], stored[-_HASH_BYTES:]
            if len(content) == piece[1] - piece[0] and _hash(content) == digest:
                os.utime(path)
                return content
        return None

    def _keep(self, folder: Path, piece: Range, content: bytes) -> None:
        """Write a piece; where the disk refuses, it is read from the store again."""
        path = folder / _spell(piece)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            self._make_room(len(content))
            folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content + _hash(content))
                os.replace(temporary, path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def _make_room(self, size: int) -> None:
        with self._lock:
            if self._used is None or self._used + size > self._most:  # other processes write here, too
                kept = [(stat.st_atime_ns, stat.st_size, path) for path, stat in _list_files(self._folder)]
                self._used = sum(bytes_ for _, bytes_, _ in kept)
                if self._used + size > self._most:
                    for _, bytes_, path in sorted(kept):
                        if self._used + size <= _LEFT * self._most:
                            break
                        path.unlink(missing_ok=True)
                        self._used -= bytes_
            self._used += size


@cache
def open_range_cache(folder: Path | None = None) -> RangeCache:
    """Open the cache of readers; one a process and folder."""
    return RangeCache(readers_place() / "ranges") if folder is None else RangeCache(folder)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_AT_ONCE, "store")


def _read_runs(bucket: Bucket, key: str, runs: Sequence[Sequence[Range]]) -> list[bytes]:
    spans = [(run[0][0], run[-1][1]) for run in runs]
    if len(spans) == 1:
        return [bucket.read_range(key, *spans[0])]
    return list(_pool().map(bucket.read_range, [key] * len(spans), *zip(*spans, strict=True)))


def _join_touching(ranges: Sequence[Range]) -> list[list[Range]]:
    """Put those of some sorted ranges together that touch each other."""
    runs: list[list[Range]] = []
    for each in ranges:
        if runs and runs[-1][-1][1] == each[0]:
            runs[-1].append(each)
        else:
            runs.append([each])
    return runs


def _list_files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    files = []
    for path in folder.glob("*/*"):
        with suppress(OSError):
            files.append((path, path.stat()))
    return files


def _name(file: RemoteFile) -> str:
    listed = file.listed
    version = "" if listed is None else f"{listed.size}\0{listed.etag}"
    return sha256(f"{file.address}\0{version}".encode()).hexdigest()[:32]


def _spell(piece: Range) -> str:
    return f"{piece[0]}-{piece[1]}"


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=_HASH_BYTES).digest()
