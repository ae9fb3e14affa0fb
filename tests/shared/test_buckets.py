"""Records in buckets: the same come out, in order, whether they were in memory or on disk."""

import os
import tempfile
from itertools import pairwise

import numpy as np
import pytest

from shared import buckets
from shared.buckets import Buckets, find_repeated, is_among, join_buckets
from shared.errors import DiskError


@pytest.mark.parametrize("block_bytes", [64, 4096, 1 << 30])
def test_equal_hashes_come_together_and_in_the_order_in_which_they_were_added(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(buckets, "BLOCK_BYTES", block_bytes)
    kind = np.dtype([("hash", np.uint64), ("number", np.int64)])
    random = np.random.default_rng(block_bytes)
    hashes = random.integers(0, 2**64, 300, np.uint64)[random.integers(0, 300, 2000)]
    left, right = Buckets(kind), Buckets(kind)
    records = np.empty(2000, kind)
    records["hash"], records["number"] = hashes, np.arange(2000)
    for part in np.split(records, [0, 1, 700, 1400]):
        left.add(part, part["hash"])
    right.add(records[::3], records[::3]["hash"])
    assert (len(left), len(right)) == (2000, 667)
    seen: dict[int, list[int]] = {}
    for own, others in join_buckets(left, right):
        assert np.isin(others["hash"], own["hash"]).all()
        for hash_, number in own.tolist():
            seen.setdefault(hash_, []).append(number)
    assert seen == {int(one): np.flatnonzero(hashes == one).tolist() for one in np.unique(hashes)}
    if left.is_on_disk:
        firsts = [own["hash"] for own, _ in join_buckets(left, right) if len(own)]
        assert all(before.max() < after.min() for before, after in pairwise(firsts))


def test_what_is_there_twice_and_what_is_among_others() -> None:
    random = np.random.default_rng(0)
    few, many = (random.integers(0, 50, size, np.uint64) for size in (20, 70))
    values, times = np.unique(many, return_counts=True)
    assert find_repeated(many).tolist() == values[times > 1].tolist()
    assert is_among(few, many).tolist() == np.isin(few, many).tolist()
    assert not is_among(few, few[:0]).any()
    assert len(find_repeated(few[:0])) == 0


def test_a_file_that_lost_records_is_not_read_as_one_of_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 8)
    ones = Buckets(np.uint64)
    ones.add(np.ones(2, np.uint64), np.ones(2, np.uint64))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, start: pread(file, size - 8, start))
    with pytest.raises(DiskError, match="gave back less than was written"):
        ones.read(0)


def test_a_folder_without_room_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 8)
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/none")
    ones = np.ones(2, np.uint64)
    with pytest.raises(DiskError, match="/dev/null/none cannot be written"):
        Buckets(np.uint64).add(ones, ones)
