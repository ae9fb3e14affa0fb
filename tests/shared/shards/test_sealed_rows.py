"""What a seal looks at: older shards that may hold one of its rows, and no others."""

import random
from itertools import pairwise
from pathlib import Path

import pytest

from shared.shards import TeacherFolder, identify_row, verify_shards
from shared.shards.sealed_rows import SealedRows
from tests.shared.shards.shard_rows import make_manifest, make_row


def seal(folder: TeacherFolder, numbers: range, reply: str = "yes") -> None:
    folder.append("train", [make_row(number, reply) for number in numbers])
    folder.seal()


def test_a_seal_reads_older_shards_only_where_rows_meet(tmp_path: Path) -> None:
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        for start in range(0, 50, 10):
            seal(folder, range(start, start + 10))
        *hidden, _ = (folder.path / shard.path for shard in folder.manifest.shards)  # the last one is not known yet
        met = hidden.pop(2)
        for path in (*hidden, met):
            path.rename(path.with_suffix(".hidden"))
        seal(folder, range(50, 60))  # new rows, and hardly anything older can be read
        met.with_suffix(".hidden").rename(met)
        seal(folder, range(25, 30), "no")
        for path in hidden:
            path.with_suffix(".hidden").rename(path)
        assert not met.exists()
        assert {folder.path / shard.path for shard in folder.manifest.shards} > set(hidden)
        assert len(folder.kept("train").statuses) == 60
    assert verify_shards(tmp_path).ok


def test_rows_that_another_worker_has_sealed_are_found(tmp_path: Path) -> None:
    with (
        TeacherFolder.open(tmp_path, make_manifest()) as first,
        TeacherFolder.open(tmp_path, make_manifest(), worker="w1") as second,
    ):
        seal(first, range(10))
        seal(second, range(10, 20))
        seal(first, range(15, 25), "no")
        seal(second, range(5, 16), "again")
        assert len(first.kept("train").statuses) == 25
    assert verify_shards(tmp_path).ok


@pytest.mark.parametrize("largest", [1, 50, 1 << 22])
def test_runs_of_any_size_find_the_shards_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr("shared.shards.sealed_rows._LARGEST_RUN", largest)
    chance = random.Random(0)
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        ends = [0, *sorted(chance.sample(range(1, 120), 12)), 120]
        for start, end in pairwise(ends):
            seal(folder, range(start, end))
        shards = folder.manifest.shards
        known = SealedRows()
        for count in (3, 7, len(shards)):  # more of them come to be known
            for _ in range(20):
                wanted = chance.sample(range(140), chance.randrange(6))
                ids = [make_row(number).example.sample_id for number in wanted]
                found = known.find_shards(folder.path, shards[:count], [identify_row(each, 0) for each in ids])
                assert found == {
                    shard.id
                    for shard, start, end in zip(shards[:count], ends, ends[1:], strict=False)
                    if any(start <= number < end for number in wanted)
                }
        assert folder.manifest.shards == shards
