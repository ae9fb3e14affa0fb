"""Which shards may hold a row: a seal looks for older answers there alone, however many rows are sealed already.

Of each row 12 bytes are kept in memory, half of its identity and the number of its shard, in sorted runs; a run is
merged with one before it of about its size, up to a bound: so a row is moved a few times, and looked up in few runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shared.shards.manifest import Shard
from shared.shards.read import identify_rows
from shared.stores.parquet import open_parquet

Array: TypeAlias = np.ndarray[Any, Any]

IDENTITY = ["sample_id", "draw"]
_LARGEST_RUN = 1 << 22  # rows: what a merge moves at most


@dataclass(frozen=True, slots=True)
class _Run:
    """Halves of identities in ascending order, and the numbers of their shards."""

    hashes: Array
    shards: Array

    def __len__(self) -> int:
        return len(self.hashes)


class SealedRows:
    """The rows of shards, read once each. A shard may be written anew with fewer rows, and is then as good as known."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # by a shard's id
        self._runs: list[_Run] = []

    def find_shards(self, folder: Path, shards: Sequence[Shard], rows: Iterable[bytes]) -> set[str]:
        """Find the ids of those of `shards` that may hold one of `rows` (see identify_row)."""
        for shard in shards:
            if shard.id not in self._numbers:
                self._add(folder / shard.path, shard.id)
        found: set[int] = set()
        wanted = np.unique(_shorten(rows))
        for run in self._runs:
            first, last = (np.searchsorted(run.hashes, wanted, side) for side in ("left", "right"))
            met = last > first
            for start, end in zip(first[met].tolist(), last[met].tolist(), strict=True):
                found.update(run.shards[start:end].tolist())
        return {shard.id for shard in shards if self._numbers[shard.id] in found}

    def _add(self, path: Path, shard_id: str) -> None:
        with open_parquet(path) as file:
            groups = (file.read_row_group(group, columns=IDENTITY) for group in range(file.num_row_groups))
            hashes = np.sort(_shorten(identity for group in groups for identity in identify_rows(group)))
        number = self._numbers[shard_id] = len(self._numbers)
        run = _Run(hashes, np.full(len(hashes), number, np.uint32))
        while self._runs and len(self._runs[-1]) <= 2 * len(run) and len(self._runs[-1]) + len(run) <= _LARGEST_RUN:
            run = _merge(self._runs.pop(), run)
        self._runs.append(run)


def _shorten(identities: Iterable[bytes]) -> Array:
    """The first half of each identity, 64 bits."""
    return np.frombuffer(b"".join(identities), np.uint64)[::2]


def _merge(one: _Run, other: _Run) -> _Run:
    hashes = np.concatenate([one.hashes, other.hashes])
    order = np.argsort(hashes, kind="stable")
    return _Run(hashes[order], np.concatenate([one.shards, other.shards])[order])
