"""The writer's side: locks, recipes, several workers, and what is never removed."""

import multiprocessing
import os
import shutil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import (
    CorruptShardError,
    DiskError,
    LockedError,
    RecipeMismatchError,
    SchemaVersionError,
    UsageError,
)
from shared.schema import Status
from shared.shards import STATUSES, TeacherFolder, load_manifest, read_kept, verify_shards
from shared.shards.folder import Claim
from shared.shards.journal import JournalReader
from shared.shards.manifest import save_manifest
from tests.shared.shards.shard_rows import make_key, make_manifest, make_row, make_rows, read_parquet_files

PROCESSES = multiprocessing.get_context("spawn")


def open_folder(task_folder: Path, worker: str = "w0", **changes: Any) -> TeacherFolder:
    return TeacherFolder.open(task_folder, make_manifest(**changes), worker=worker)


def kept_ids(folder: TeacherFolder, *numbers: int) -> list[bool]:
    """Whether each of the numbered rows is kept."""
    kept = folder.kept("train").request_keys
    found: list[bool] = np.isin(np.array([bytes.fromhex(make_key(number)) for number in numbers], "S32"), kept).tolist()
    return found


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hold_folder(task_folder: Path, worker: str, connection: Connection) -> None:
    """In a child: write and keep one row, then hold the folder until told to die."""
    with open_folder(task_folder, worker) as folder:
        folder.append("train", make_rows(100))
        folder.commit()
        connection.send(os.getpid())
        connection.recv()


def write_and_seal(task_folder: Path, worker: str, first: int) -> None:
    """In a child: many small shards, each a change of the manifest."""
    with open_folder(task_folder, worker) as folder:
        for number in range(first, first + 4):
            folder.append("train", make_rows(number))
            folder.seal("train")


def test_rows_survive_closing_without_sealing(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0, 1))
        assert folder.unsealed_bytes("train") > 0
        assert folder.unsealed_bytes("dev") == 0
    with open_folder(tmp_path) as folder:
        assert kept_ids(folder, 0, 1, 2) == [True, True, False]
        assert folder.notes == ()
        folder.seal()
        assert folder.unsealed_bytes("train") == 0
        assert kept_ids(folder, 0, 1, 2) == [True, True, False]
    assert [row["sample_id"] for row in read_parquet_files(folder.path)] == ["row-0", "row-1"]
    assert not list(folder.path.glob("journal/**/*.arrows"))


def test_kept_describes_each_current_row_once(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0, 1))
        folder.append("dev", [make_row(7, status=Status.UNASKED)])
        folder.seal()
        folder.append("train", [make_row(1, status=Status.FAILED), make_row(2), make_row(2, status=Status.REFUSED)])
        kept = folder.kept("train")
        by_key = dict(zip((key.hex() for key in kept.request_keys.tolist()), kept.statuses.tolist(), strict=True))
        assert {key: STATUSES[code] for key, code in by_key.items()} == {
            make_key(0): Status.OK,
            make_key(1): Status.FAILED,
            make_key(2): Status.REFUSED,
        }
        assert kept.request_keys.dtype == "S32"
        assert kept.fingerprints.shape == (3, 2)
        assert kept.draws.tolist() == [0, 0, 0]
        assert STATUSES[folder.kept("dev").statuses[0]] == Status.UNASKED
        assert folder.kept("test").request_keys.shape == (0,)


def test_answers_are_found_by_their_request(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0, 1, 2))
        folder.append("dev", make_rows(3))
        folder.seal()
        folder.append("train", [make_row(1, reply="later"), make_row(4)])
        found = sorted(folder.find_rows([make_key(n) for n in (1, 3, 4, 99)]), key=lambda row: row.request_key)
        assert {row.example.sample_id: row.answer.reply for row in found} == {
            "row-1": "later",
            "row-3": "yes",
            "row-4": "yes",
        }
        assert list(folder.find_rows([])) == []


def test_the_plan_is_kept_by_split(tmp_path: Path) -> None:
    with open_folder(tmp_path, planned={"train": 5}) as folder:
        folder.plan({"dev": 2})
    with open_folder(tmp_path, planned={"train": 6}, source="hf://other") as folder:
        assert folder.manifest.planned == {"train": 6, "dev": 2}
    assert load_manifest(folder.path).planned == {"train": 6, "dev": 2}
    assert load_manifest(folder.path).source == "hf://other"


def test_a_folder_takes_over_the_tokenizer_of_its_replies_and_refuses_another(tmp_path: Path) -> None:
    recipe = make_manifest().recipe
    named = {**recipe, "tokenizer": {"name": "a", "sha256": "1"}}
    open_folder(tmp_path).close()
    for given in (named, recipe):
        with open_folder(tmp_path, recipe=given) as folder:
            assert folder.manifest.recipe == named
        assert load_manifest(folder.path).recipe == named
    with pytest.raises(RecipeMismatchError, match=r"recipe\.tokenizer\.sha256"):
        open_folder(tmp_path, recipe={**recipe, "tokenizer": {"name": "a", "sha256": "2"}})


def test_another_recipe_is_refused_before_anything_changes(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
    before = list_files(tmp_path)
    with pytest.raises(RecipeMismatchError, match=r"recipe\.model"):
        open_folder(tmp_path, recipe={"model": "other"})
    assert list_files(tmp_path) == before


def test_a_folder_of_a_newer_version_is_refused_before_anything_changes(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
    save_manifest(folder.path, make_manifest(schema_version=99))
    before = list_files(tmp_path)
    with pytest.raises(SchemaVersionError):
        open_folder(tmp_path)
    assert list_files(tmp_path) == before


def test_a_lost_manifest_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
        folder.seal()
    (folder.path / "manifest.json").unlink()
    with pytest.raises(CorruptShardError, match="put the manifest back"):
        open_folder(tmp_path)
    assert len(read_parquet_files(folder.path)) == 1
    assert not (folder.path / "manifest.json").exists()


def test_bad_names_and_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="teacher 'a/b'"):
        open_folder(tmp_path, teacher="a/b")
    with pytest.raises(UsageError, match=r"worker '\.\./w'"):
        open_folder(tmp_path, "../w")
    with open_folder(tmp_path) as folder:
        with pytest.raises(UsageError, match="split 'a/b'"):
            folder.append("a/b", make_rows(0))
        row = make_row(0)
        object.__setattr__(row, "request_key", "abc")
        with pytest.raises(ValueError, match="'abc' of 'row-0'"):
            folder.append("train", [row])
        folder.append("train", [])
        assert folder.unsealed_bytes("train") == 0


def test_one_worker_name_is_one_process(tmp_path: Path) -> None:
    here, there = PROCESSES.Pipe()
    child = PROCESSES.Process(target=hold_folder, args=(tmp_path, "w0", there))
    child.start()
    pid = here.recv()
    with pytest.raises(LockedError, match=rf"teacher=tiny is being written by process {pid} on .*worker name"):
        open_folder(tmp_path)
    # Another worker runs beside it, sees its rows, and leaves its journal alone.
    with open_folder(tmp_path, "w1") as folder:
        assert kept_ids(folder, 100) == [True]
        folder.append("train", make_rows(1))
        folder.seal()
        assert (folder.path / "journal" / "split=train" / "w0.arrows").exists()
        assert [row["sample_id"] for row in read_parquet_files(folder.path)] == ["row-1"]
    child.kill()
    child.join()
    # The lock died with its holder; what it had acknowledged did not.
    with open_folder(tmp_path) as folder:
        assert kept_ids(folder, 100, 1) == [True, True]


def test_the_journal_of_a_dead_worker_is_sealed_along(tmp_path: Path) -> None:
    with open_folder(tmp_path, "w1") as folder:
        folder.append("train", [make_row(0, reply="old"), make_row(1, reply="old")])
        folder.append("dev", make_rows(5))
    with open_folder(tmp_path, "w0") as folder:
        folder.append("train", [make_row(0, reply="new")])
        folder.seal()
    replies = {row["sample_id"]: row["reply"] for row in read_parquet_files(folder.path)}
    assert replies == {"row-0": "new", "row-1": "old"}
    assert len(read_parquet_files(folder.path, "dev")) == 1
    assert not list(folder.path.glob("journal/**/*.arrows"))
    assert verify_shards(tmp_path).ok


def test_the_same_name_twice_in_one_process_is_refused(tmp_path: Path) -> None:
    with open_folder(tmp_path), pytest.raises(LockedError, match=str(os.getpid())):
        open_folder(tmp_path)


def test_workers_that_seal_at_once_lose_no_shard(tmp_path: Path) -> None:
    children = [
        PROCESSES.Process(target=write_and_seal, args=(tmp_path, f"w{index}", 100 * index)) for index in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    found = verify_shards(tmp_path)
    assert (found.ok, found.rows, found.shards, found.unsealed) == (True, 12, 12, 0)
    ids = [row["sample_id"] for row in read_parquet_files(tmp_path / "teacher=tiny")]
    assert sorted(ids) == sorted(f"row-{100 * index + n}" for index in range(3) for n in range(4))


def test_a_shard_of_unknown_origin_is_left_alone(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
        folder.seal()
    shard = next(folder.path.glob("split=train/*.parquet"))
    stranger = shard.with_name("part-00009-w7-0123456789ab.parquet")
    shutil.copy(shard, stranger)
    with open_folder(tmp_path) as folder:
        assert folder.notes == (f"{stranger} is not in the manifest and is left alone; no command reads it",)
    assert stranger.exists()


def test_leftovers_of_a_cut_short_seal_are_removed(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
        folder.seal()
    shard = next(folder.path.glob("split=train/*.parquet"))
    older = shard.with_name(shard.name.replace("part-00000", "part-00007"))
    shutil.copy(shard, older)
    (folder.path / "split=train" / ".part-00001-w0-x.parquet.tmp").touch()
    (folder.path / ".manifest.json.tmp").touch()
    with open_folder(tmp_path) as folder:
        assert folder.notes == ()
    assert [path.name for path in folder.path.glob("split=train/*")] == [shard.name]
    assert not (folder.path / ".manifest.json.tmp").exists()


def test_a_torn_tail_is_dropped_and_told(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
    journal = folder.path / "journal" / "split=train" / "w0.arrows"
    with journal.open("ab") as file:
        file.write(b"torn")
    with open_folder(tmp_path) as folder:
        assert folder.notes == (f"{journal}: dropped 4 bytes of rows that were never acknowledged",)
        assert kept_ids(folder, 0) == [True]


def test_a_file_in_the_way_of_the_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "teacher=tiny").touch()
    with pytest.raises(DiskError, match="cannot be written"):
        open_folder(tmp_path)


@pytest.mark.parametrize("damage", ["a bit", "zeros", "a checksum", "all zeros"])
def test_a_journal_whose_head_is_damaged_and_that_holds_no_row_is_put_aside(damage: str, tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
        folder.commit()
        (path,) = folder.path.glob("journal/split=*/*.arrows")
    with JournalReader(path) as reader:
        size = reader.end
    content = bytearray(path.read_bytes()[:size])
    at = {"a bit": size // 2, "zeros": 16, "a checksum": content.index(b"crc32:") + 8, "all zeros": 0}[damage]
    length = {"zeros": 200, "all zeros": size}.get(damage, 1)
    content[at : at + length] = bytes(length) if length > 1 else bytes((content[at] ^ 1,))
    path.write_bytes(content)
    with open_folder(tmp_path) as folder:
        assert any("is damaged from its start" in note for note in folder.notes)
        folder.append("train", make_rows(1))
        folder.commit()
        assert kept_ids(folder, 0, 1) == [False, True]
    assert path.with_name("w0.arrows.damaged").read_bytes() == content, "nothing is thrown away"
    with open_folder(tmp_path) as folder:
        assert folder.notes == ()


def test_a_damaged_journal_of_another_worker_is_said_when_sealing_meets_it(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        other = folder.path / "journal" / "split=train" / "w1.arrows"
        folder.append("train", make_rows(0))
        other.write_bytes(bytes(4096))
        assert folder.take_notes() == ()
        folder.seal()
        (note,) = folder.take_notes()
        assert note.startswith(f"{other} is damaged")
        assert note.endswith("rows that it held will be asked again")
        assert folder.take_notes() == ()
        assert kept_ids(folder, 0) == [True]
    assert other.with_name("w1.arrows.damaged").exists()


def test_a_damaged_head_before_whole_rows_is_named_and_nothing_changes(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
        folder.commit()
        (path,) = folder.path.glob("journal/split=*/*.arrows")
    content = path.read_bytes()
    with JournalReader(path) as reader:
        size = reader.end
    for at in range(4, size, 61):
        changed = content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]
        path.write_bytes(changed)
        with pytest.raises(CorruptShardError, match=r"may have been acknowledged.*mv .*w0\.arrows\.damaged"):
            open_folder(tmp_path)
        assert path.read_bytes() == changed


@pytest.mark.parametrize("length", [0, 1, 4, 8, 40, 200])
def test_a_head_that_was_being_written_is_written_again(length: int, tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
        (path,) = folder.path.glob("journal/split=*/*.arrows")
    path.write_bytes(path.read_bytes()[:length])
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(1))
        folder.commit()
        assert kept_ids(folder, 1) == [True]
    assert [other.name for other in path.parent.iterdir()] == ["w0.arrows"]


def test_a_journal_that_is_a_pipe_is_not_opened(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        pass
    (folder.path / "journal" / "split=train").mkdir()
    os.mkfifo(folder.path / "journal" / "split=train" / "w0.arrows")
    with pytest.raises(CorruptShardError, match="is no plain file"):
        open_folder(tmp_path)


def keep_elsewhere(path: Path, elsewhere: Path) -> None:
    """Move a file or folder away, and put a link in its place, as caches of downloads and DVC do."""
    elsewhere.mkdir(exist_ok=True)
    target = elsewhere / f"{len(os.listdir(elsewhere))}"
    path.rename(target)
    path.symlink_to(os.path.relpath(target, path.parent), target_is_directory=target.is_dir())


@pytest.mark.parametrize(
    ("place", "worker"),
    [
        ("*.json", "w0"),
        ("split=train", "w0"),
        ("split=train/*", "w0"),
        ("journal", "w0"),
        ("journal/split=train", "w0"),
        ("journal/*/*.arrows", "w0"),
        ("journal/*/*.arrows", "w1"),
        ("journal/*.lock", "w0"),
        ("**/*.*", "w0"),
    ],
)
def test_links_are_read_and_nothing_is_written_through_them(place: str, worker: str, tmp_path: Path) -> None:
    with open_folder(tmp_path / "films") as folder:
        folder.append("train", make_rows(0, 1))
        folder.seal()
        folder.append("train", make_rows(2))
    for path in [path for path in folder.path.glob(place) if path.is_file() or path.is_dir()]:
        keep_elsewhere(path, tmp_path / "elsewhere")
    before = list_files(tmp_path)
    assert len(os.listdir(tmp_path / "elsewhere")) > 0
    assert read_kept(folder.path, load_manifest(folder.path), "train").request_keys.shape == (3,)
    assert verify_shards(folder.path).problems == ()
    with pytest.raises(CorruptShardError, match=r"is a link.*cp -rL"):
        open_folder(tmp_path / "films", worker=worker)
    with pytest.raises(CorruptShardError, match=r"is a link.*cp -rL"):
        Claim(tmp_path / "films", folder.manifest.teacher, worker)
    assert list_files(tmp_path) == before
    shutil.copytree(folder.path, tmp_path / "copy" / folder.path.name)
    with open_folder(tmp_path / "copy") as copy:
        assert kept_ids(copy, 0, 1, 2) == [True, True, True]


def test_a_linked_journal_beside_no_manifest_is_left_alone(tmp_path: Path) -> None:
    with open_folder(tmp_path / "films") as folder:
        folder.append("train", make_rows(0, 1))
    (folder.path / "manifest.json").unlink()
    keep_elsewhere(folder.path / "journal", tmp_path / "elsewhere")
    before = list_files(tmp_path)
    with pytest.raises(CorruptShardError, match="journal is a link"):
        open_folder(tmp_path / "films", worker="w1")
    assert list_files(tmp_path) == before
