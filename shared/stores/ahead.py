"""Row groups of an object store, fetched before they are read: what waits for an answer waits for several at once."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

from shared.errors import Error
from shared.stores.parquet import fetch_row_group, is_remote


class StoredGroup(Protocol):
    """A row group: number `index` of the file `path`, and the bytes of its columns before they were compressed."""

    @property
    def path(self) -> Path:
        """Where its file is, or would be."""

    @property
    def index(self) -> int:
        """Its number in the file."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """The bytes of each column."""


T = TypeVar("T", bound=StoredGroup)

_AHEAD = 16  # row groups
_AHEAD_BYTES = 256 << 20  # of their columns before they were compressed
_THREADS = 8

_running: dict[tuple[Path, int, tuple[str, ...]], Future[None]] = {}  # pieces of one row group are fetched once


def fetch_ahead(groups: Iterable[T], columns: Sequence[str]) -> Iterator[T]:
    """Give the same row groups, those columns of the next ones being fetched meanwhile. On this disk nothing is."""
    waiting: deque[tuple[T, Future[None] | None, int]] = deque()
    size = 0
    for group in groups:
        own = sum(group.sizes.get(name, 0) for name in columns)
        waiting.append((group, _start(group, columns), own))
        size += own
        while waiting and (waiting[0][1] is None or len(waiting) > _AHEAD or size > _AHEAD_BYTES):
            size -= waiting[0][2]
            yield _finish(waiting.popleft())
    while waiting:
        yield _finish(waiting.popleft())


def fetch_soon(groups: Iterable[StoredGroup], columns: Sequence[str]) -> None:
    """Begin to fetch those columns of some row groups, and wait for nothing."""
    for group in groups:
        _start(group, columns)


def _start(group: StoredGroup, columns: Sequence[str]) -> Future[None] | None:
    if not is_remote(group.path):
        return None
    key = (group.path, group.index, tuple(columns))
    running = _running.get(key)
    if running is None:
        running = _running[key] = _pool().submit(_fetch, group, tuple(columns))
        running.add_done_callback(lambda _: _running.pop(key, None))
    return running


def _finish(waiting: tuple[T, Future[None] | None, int]) -> T:
    group, future, _ = waiting
    if future is not None:
        future.result()
    return group


def _fetch(group: StoredGroup, columns: Sequence[str]) -> None:
    with suppress(Error, OSError):  # whoever reads it says so
        fetch_row_group(group.path, group.index, columns)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "ahead")
