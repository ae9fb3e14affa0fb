"""Kill -9 at any point loses no acknowledged row and doubles none; neither does a disk that fails at any point."""

import multiprocessing
import os
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from shared.shards import TeacherFolder, check_readable, verify_shards
from tests.shared.shards import crashes
from tests.shared.shards.shard_rows import COST_USD, make_manifest, make_rows, read_parquet_files

PROCESSES = multiprocessing.get_context("spawn")
FINAL = {(split, number): version for split, numbers, version, _ in crashes.STEPS for number in numbers}
APPENDED = sum(len(numbers) for _, numbers, _, _ in crashes.STEPS)


def seal_and_read(task_folder: Path) -> tuple[dict[tuple[str, int], int], TeacherFolder]:
    """What the next run finds: the version of every row, each of which is there once."""
    with TeacherFolder.open(task_folder, make_manifest()) as folder:
        kept = {split: len(folder.kept(split).statuses) for split in ("train", "dev")}
        folder.seal()
    found = {}
    for split in ("train", "dev"):
        rows = read_parquet_files(folder.path, split)
        ids = [row["sample_id"] for row in rows]
        assert len(ids) == len(set(ids)) == kept[split]
        found.update({(split, int(row["sample_id"].removeprefix("row-"))): int(row["reply"]) for row in rows})
    assert verify_shards(task_folder).problems == ()
    check_readable(folder.path)
    leftovers = [path for path in folder.path.rglob("*") if path.name.endswith((".tmp", ".arrows"))]
    assert leftovers == []
    return found, folder


def count_spent(folder: TeacherFolder) -> float:
    spent = folder.manifest.cost_usd
    assert spent is not None
    return spent / COST_USD


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders that a harvest left, dying each time at another change of its folder; the last one lived."""
    root = tmp_path_factory.mktemp("crashed")
    child = PROCESSES.Process(target=crashes.crash_everywhere, args=(root,))
    child.start()
    child.join()
    assert child.exitcode == 0
    folders = sorted(root.iterdir())
    assert len(folders) > 60
    return folders


@pytest.fixture
def _quick_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk, where what is looked at is what the kernel has."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("_quick_fsync")
def test_a_crash_at_any_change_loses_and_doubles_nothing(crashed: list[Path], tmp_path: Path) -> None:
    for left in crashed:
        task_folder = shutil.copytree(left, tmp_path / left.name)
        lines = (task_folder / "acked").read_text().splitlines()
        acked = [(split, int(number), int(version)) for split, number, version in map(str.split, lines)]
        found, folder = seal_and_read(task_folder)
        for split, number, version in acked:
            assert found[split, number] >= version, task_folder.name
        # Every answer that was acknowledged is in the books; one that was on its way may be.
        assert len(acked) <= count_spent(folder) <= APPENDED, task_folder.name
    assert found == FINAL
    assert count_spent(folder) == APPENDED


@pytest.mark.real
@pytest.mark.usefixtures("_quick_fsync")
def test_the_harvest_goes_on_after_a_crash_at_any_change(crashed: list[Path]) -> None:
    for task_folder in crashed:
        crashes.run_harvest(task_folder, lambda *_: None)
        found, _ = seal_and_read(task_folder)
        assert found == FINAL, task_folder.name


@pytest.mark.usefixtures("_quick_fsync")
@pytest.mark.real
def test_a_disk_error_at_every_change_of_the_folder(tmp_path: Path) -> None:
    at = errors = 0
    while errors or not at:
        task_folder = tmp_path / f"{at:04d}"
        task_folder.mkdir()
        with crashes.interfere(at, crashes.fail):
            errors = crashes.run_stubborn_harvest(task_folder)
        found, _ = seal_and_read(task_folder)
        assert found == FINAL, at
        at += 1
    assert at > 60


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(7)
    acked: set[int] = set()
    for _ in range(6):
        here, there = PROCESSES.Pipe(duplex=False)
        first = max(acked, default=-1) + 1
        child = PROCESSES.Process(target=crashes.harvest_until_killed, args=(tmp_path, first, there))
        child.start()
        there.close()
        acked.add(here.recv())
        time.sleep(chance.uniform(0.01, 0.4))
        child.kill()
        child.join()
        with suppress(EOFError):
            while True:
                acked.add(here.recv())
    found, _ = seal_and_read(tmp_path)
    kept = {number for _, number in found}
    assert acked <= kept
    assert len(kept - acked) <= 6  # at most the one on its way at each kill
    assert kept == set(range(max(kept) + 1))


def test_rows_of_a_killed_run_can_be_asked_again(tmp_path: Path) -> None:
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        folder.append("train", make_rows(0, 1, reply="1"))
        folder.commit()
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        folder.append("train", make_rows(1, reply="2"))
    found, folder = seal_and_read(tmp_path)
    assert found == {("train", 0): 1, ("train", 1): 2}
    assert count_spent(folder) == 3
