"""A shard is replaced by a new version of itself, or stays as it was: at any crash, and at any error of the disk."""

import multiprocessing
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shared.errors import DiskError
from shared.shards import TeacherFolder, load_manifest, verify_shards
from tests.shared.shards import crashes
from tests.shared.shards.shard_rows import COST_USD, make_manifest, read_parquet_files

PROCESSES = multiprocessing.get_context("spawn")
ROWS = 9


def check_whole(folder: Path) -> set[tuple[str, ...]]:
    """Every row once, each shard with one version; the versions that there are."""
    manifest = load_manifest(folder)
    versions = set()
    ids: list[str] = []
    for shard in manifest.shards:
        rows = pq.ParquetFile(folder / shard.path).read().to_pylist()
        ids += [row["sample_id"] for row in rows]
        versions.add(tuple({row["reply"] for row in rows}))
        assert sum(row["cost_usd"] for row in rows) == shard.cost_usd == COST_USD * shard.rows
    assert sorted(ids) == [f"row-{number}" for number in range(ROWS)]
    assert versions <= {("1",), ("2",)}
    return versions


def finish_and_check(task_folder: Path) -> None:
    """The next run removes what was left, and does the rest."""
    crashes.rewrite(task_folder)
    assert check_whole(task_folder / "teacher=tiny") == {("2",)}
    assert len(read_parquet_files(task_folder / "teacher=tiny")) == ROWS
    assert verify_shards(task_folder).problems == ()
    manifest = load_manifest(task_folder / "teacher=tiny")
    assert manifest.superseded.cost_usd == 0
    assert manifest.retired == ()


def test_a_crash_at_any_change_leaves_each_shard_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = PROCESSES.Process(target=crashes.crash_rewrite_everywhere, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 0
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    folders = sorted(tmp_path.iterdir())
    seen = {frozenset(check_whole(folder / "teacher=tiny")) for folder in folders}
    assert len(folders) > 15
    assert len(seen) == 3  # all old, some new, all new
    for folder in folders:
        finish_and_check(folder)


def test_a_disk_error_at_any_change_leaves_each_shard_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    crashes.fill_for_rewrite(tmp_path / "filled")
    for at in range(1000):
        task_folder = Path(shutil.copytree(tmp_path / "filled", tmp_path / str(at)))
        with crashes.interfere(at, crashes.fail):
            try:
                crashes.rewrite(task_folder)
                failed = False
            except DiskError:
                failed = True
        check_whole(task_folder / "teacher=tiny")
        finish_and_check(task_folder)
        if not failed:
            break
    assert at > 15


def test_other_rows_and_another_bill_are_refused(tmp_path: Path) -> None:
    crashes.fill_for_rewrite(tmp_path)
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        before = folder.manifest
        for revise in (lambda table: table.slice(1), lambda table: table.slice(0, 1)):
            with pytest.raises(ValueError, match="would have"):
                folder.rewrite(before.shards[0], revise)
    assert load_manifest(folder.path) == before
    assert verify_shards(tmp_path).problems == ()
