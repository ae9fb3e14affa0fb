"""Verification names each kind of damage, the file that has it, and what to do."""

import os
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import ShardError
from shared.schema import SCHEMA_VERSION, Status, row_schema
from shared.shards import TeacherFolder, load_manifest, verify_shards
from shared.shards.journal import Journal
from shared.shards.manifest import Manifest, Shard, save_manifest
from shared.shards.verify import Verification
from tests.shared.shards.shard_rows import make_manifest, make_row, make_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sealed train rows, one dev row, and two rows in the journal, one of which is asked again."""
    with TeacherFolder.open(tmp_path, make_manifest(planned={"train": 9, "dev": 1})) as writer:
        writer.append("train", make_rows(0, 1, 2))
        writer.append("dev", make_rows(0))
        writer.seal()
        writer.append("train", make_rows(2, 3))
    return writer.path


def train_shard(folder: Path) -> Path:
    return folder / load_manifest(folder).shards_of("train")[0].path


def expect_problem(folder: Path, *patterns: str) -> None:
    problems = verify_shards(folder).problems
    assert len(problems) == len(patterns), problems
    for problem, pattern in zip(problems, patterns, strict=True):
        assert re.search(pattern, problem), problem


def replace_shard(folder: Path, table: pa.Table, **changes: Any) -> None:
    """Put `table` in place of the train shard, with a manifest that agrees on its bytes."""
    shard = load_manifest(folder).shards_of("train")[0]
    path = folder / shard.path
    pq.write_table(table, path)
    describe_shard(folder, shard, rows=table.num_rows, **changes)


def describe_shard(folder: Path, shard: Shard, **changes: Any) -> None:
    content = (folder / shard.path).read_bytes()
    manifest = load_manifest(folder)
    described = replace(shard, **{"bytes": len(content), "sha256": sha256(content).hexdigest(), **changes})
    others = tuple(other for other in manifest.shards if other.path != shard.path)
    save_manifest(folder, replace(manifest, shards=(described, *others)))


def test_a_sound_folder_has_no_problem(folder: Path) -> None:
    expected = Verification(rows=4, unsealed=2, planned=10, shards=2, problems=())
    assert verify_shards(folder) == verify_shards(folder.parent) == expected
    assert expected.ok


def test_several_teachers_are_verified_together(folder: Path) -> None:
    with TeacherFolder.open(folder.parent, make_manifest("other")) as writer:
        writer.append("train", make_rows(0))
        writer.seal()
    train_shard(folder).unlink()
    found = verify_shards(folder.parent)
    assert (found.rows, found.shards, found.ok) == (5, 3, False)
    assert "teacher=tiny" in found.problems[0]
    assert verify_shards(writer.path).ok


def test_a_path_without_teachers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="holds no teacher's answers"):
        verify_shards(tmp_path)


def test_a_flipped_byte(folder: Path) -> None:
    shard = train_shard(folder)
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    expect_problem(folder, rf"{shard.name} was changed: .*restore it")


def test_a_missing_and_a_shortened_shard(folder: Path) -> None:
    missing, shortened = (folder / shard.path for shard in load_manifest(folder).shards)
    missing.unlink()
    os.truncate(shortened, 10)
    problems = sorted(verify_shards(folder).problems, key=lambda problem: "bytes" in problem)
    assert len(problems) == 2
    assert f"{missing.name} is missing: " in problems[0]
    assert f"{shortened.name} has 10 bytes, the manifest says " in problems[1]


def test_a_newer_schema(folder: Path) -> None:
    save_manifest(folder, make_manifest(schema_version=SCHEMA_VERSION + 1))
    expect_problem(folder, "newer version.*upgrade")


def test_a_manifest_that_is_gone_or_garbled(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    expect_problem(folder, "manifest.json is not JSON")
    (folder / "manifest.json").unlink()
    expect_problem(folder, "manifest.json is missing, though the folder holds rows")


def test_a_torn_journal(folder: Path) -> None:
    journal = folder / "journal" / "split=train" / "w0.arrows"
    with journal.open("ab") as file:
        file.write(b"x" * 99)
    expect_problem(folder, "w0.arrows ends in 99 bytes .*never acknowledged.*harvest run drops them")
    assert verify_shards(folder).unsealed == 2
    with TeacherFolder.open(folder.parent, make_manifest()):
        pass
    assert verify_shards(folder).ok


def test_a_journal_damaged_inside_and_at_its_start(folder: Path) -> None:
    with TeacherFolder.open(folder.parent, make_manifest()) as writer:
        size = writer.unsealed_bytes("train")
        writer.append("train", make_rows(5))
    journal = folder / "journal" / "split=train" / "w0.arrows"
    content = bytearray(journal.read_bytes())
    content[size - 9] ^= 1
    journal.write_bytes(content)
    expect_problem(folder, r"w0.arrows has \d+ damaged bytes .*harvest run asks the lost ones again")
    assert verify_shards(folder).unsealed == 1
    content[0] ^= 1
    journal.write_bytes(content)
    expect_problem(folder, "w0.arrows is damaged at its start")
    assert verify_shards(folder).rows == 4


def test_a_journal_of_other_columns(folder: Path) -> None:
    other = row_schema().remove(row_schema().get_field_index("choices"))
    Journal.open(folder / "journal" / "split=train" / "w9.arrows", other).close()
    expect_problem(folder, "w9.arrows holds rows of another layout .*choices")


def test_files_that_the_manifest_does_not_name(folder: Path) -> None:
    shard = train_shard(folder)
    leftover = shard.with_name(shard.name.replace("part-00000", "part-00005"))
    stranger = shard.with_name("part-00006-w0-ffffffffffff.parquet")
    shutil.copy(shard, leftover)
    shutil.copy(shard, stranger)
    expect_problem(
        folder, rf"{leftover.name} is not in .*harvest run removes it", rf"{stranger.name} is not in .*move it out"
    )
    with TeacherFolder.open(folder.parent, make_manifest()):
        pass
    expect_problem(folder, stranger.name)


def test_rows_that_are_there_twice(folder: Path) -> None:
    shard = load_manifest(folder).shards_of("train")[0]
    copy = replace(shard, path="split=train/part-00009-w0-ffffffffffff.parquet")
    shutil.copy(folder / shard.path, folder / copy.path)
    manifest = load_manifest(folder)
    save_manifest(folder, replace(manifest, shards=(*manifest.shards, copy)))
    expect_problem(folder, r"split=train holds 3 rows more than once \(row-0 draw 0 in part-00000.* and part-00009")


def test_the_same_row_in_two_splits_is_no_double(folder: Path) -> None:
    ids = {
        pq.read_table(folder / shard.path, partitioning=None)["sample_id"][0].as_py()
        for shard in load_manifest(folder).shards
    }
    assert ids == {"row-0"}
    assert verify_shards(folder).ok


def test_a_wrong_row_count(folder: Path) -> None:
    describe_shard(folder, load_manifest(folder).shards_of("train")[0], rows=4)
    expect_problem(folder, "has 3 rows, the manifest says 4; restore manifest.json")


def test_other_columns(folder: Path) -> None:
    table = pq.read_table(train_shard(folder), partitioning=None)
    replace_shard(folder, table.drop_columns(["draw"]))
    expect_problem(folder, "another layout .*: draw")
    at = table.schema.get_field_index("label")
    replace_shard(folder, table.set_column(at, "label", table["label"].cast(pa.int32())))
    expect_problem(folder, "another layout .*: label")


def test_vectors_of_another_type_are_no_other_columns(tmp_path: Path) -> None:
    with TeacherFolder.open(tmp_path, make_manifest(), vector_type=pa.float32()) as writer:
        writer.append("train", make_rows(0))
        writer.seal()
        writer.append("train", make_rows(1))
    assert verify_shards(tmp_path).ok


def test_a_file_that_is_no_parquet_whatever_its_hash(folder: Path) -> None:
    shard = load_manifest(folder).shards_of("train")[0]
    (folder / shard.path).write_bytes(b"PAR1 not at all")
    describe_shard(folder, shard)
    expect_problem(folder, "is not readable as Parquet")


def test_labels_out_of_range(folder: Path) -> None:
    table = pq.read_table(train_shard(folder), partitioning=None)
    labels = pa.array([2, -1, None], pa.int64())
    replace_shard(folder, table.set_column(table.schema.get_field_index("label"), "label", labels))
    expect_problem(folder, r"has 2 rows with a label out of range \(2 labels")


def test_logprobs_of_other_labels_and_unknown_statuses(tmp_path: Path) -> None:
    with TeacherFolder.open(tmp_path, make_manifest()) as writer:
        writer.append("train", [make_row(0, label_logprobs=(-1.0, -1.0, -1.0)), make_row(1, label_logprobs=None)])
        writer.append("train", [make_row(2, status=cast(Status, "lost"))])
        writer.seal()
    expect_problem(writer.path, "has 1 rows with an unknown status", "has 1 rows with a wrong number of label_logprobs")


def test_a_regression_task_has_no_labels_to_check(tmp_path: Path) -> None:
    manifest = make_manifest(kind="regression", labels=(), target_range=(0.0, 5.0))
    with TeacherFolder.open(tmp_path, manifest) as writer:
        writer.append("train", make_rows(0))
        writer.seal()
    assert verify_shards(tmp_path).ok


def test_a_harvest_that_goes_on_meanwhile_is_looked_at_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is rewritten between the reading of the manifest and that of the shard."""

    def load_and_seal(path: Path) -> Manifest:
        monkeypatch.undo()
        manifest = load_manifest(path)
        with TeacherFolder.open(folder.parent, make_manifest()) as writer:
            writer.seal()
        assert not all((path / shard.path).exists() for shard in manifest.shards)
        return manifest

    monkeypatch.setattr("shared.shards.verify.load_manifest", load_and_seal)
    assert verify_shards(folder) == Verification(rows=5, unsealed=0, planned=10, shards=3, problems=())


@pytest.mark.parametrize("changes", [{"recipe": {"model": "other"}}, {"teacher": "other"}, {"task": "other"}])
def test_a_shard_of_another_run_is_noticed_though_its_hash_is_right(
    folder: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    other = make_manifest(**{"planned": {"train": 3}, **changes})
    with TeacherFolder.open(tmp_path / "elsewhere", other) as writer:
        writer.append("train", make_rows(0, 1, 2))
        writer.seal()
    assert verify_shards(writer.path).ok
    shutil.copy(train_shard(writer.path), train_shard(folder))
    describe_shard(folder, load_manifest(folder).shards_of("train")[0])
    expect_problem(folder, "belongs to another run .*restore the folder's own shard")


def test_a_shard_that_does_not_say_whose_it_is_verifies(folder: Path) -> None:
    table = pq.read_table(train_shard(folder), partitioning=None)
    metadata = {key: value for key, value in table.schema.metadata.items() if key != b"harvest_distill.shard"}
    assert len(metadata) == len(table.schema.metadata) - 1
    replace_shard(folder, table.replace_schema_metadata(metadata))
    assert verify_shards(folder).ok
