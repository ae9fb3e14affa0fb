"""Sealing: layout of the Parquet files, and rows that were answered again."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.schema import Status, row_schema, sum_costs
from shared.shards import TeacherFolder, seal
from shared.shards.manifest import Superseded, load_manifest, stamp_owner
from tests.shared.shards.shard_rows import COST_USD, LABELS, make_manifest, make_row, make_rows, read_parquet_files


def open_folder(task_folder: Path, vector_type: pa.DataType | None = None) -> TeacherFolder:
    return TeacherFolder.open(task_folder, make_manifest(), vector_type=vector_type)


def read_replies(folder: TeacherFolder) -> dict[str, str]:
    rows = read_parquet_files(folder.path)
    assert len(rows) == len({row["sample_id"] for row in rows})
    return {row["sample_id"]: row["reply"] for row in rows}


def test_small_batches_become_full_row_groups(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        for start in range(0, 9000, 250):
            folder.append("train", make_rows(*range(start, start + 250)))
        folder.seal("train")
    (shard,) = folder.manifest.shards
    with pq.ParquetFile(folder.path / shard.path) as file:
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        assert file.read(columns=["sample_id"])["sample_id"].to_pylist() == [f"row-{n}" for n in range(9000)]
    assert groups == [4096, 4096, 808]
    assert (shard.rows, shard.cost_usd) == (9000, 9000 * COST_USD)


def test_row_groups_of_large_rows_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "ROW_GROUP_BYTES", 200_000)
    with open_folder(tmp_path) as folder:
        for number in range(10):
            folder.append("train", [make_row(number, embedding=np.zeros(50_000, np.float16))])
        folder.seal()
    with pq.ParquetFile(folder.path / folder.manifest.shards[0].path) as file:
        assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [2] * 5


def test_the_files_have_the_schema_of_rows_and_no_journal_id(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0))
        folder.seal()
    found = pq.read_schema(folder.path / folder.manifest.shards[0].path)
    assert found.equals(row_schema())
    assert found.metadata == {**row_schema(labels=LABELS).metadata, **stamp_owner(folder.manifest, "train")}


def test_compression_and_encodings(tmp_path: Path) -> None:
    with open_folder(tmp_path, pa.float32()) as folder:
        folder.append("train", make_rows(*range(100)))
        folder.seal()
    with pq.ParquetFile(folder.path / folder.manifest.shards[0].path) as file:
        group = file.metadata.row_group(0)
        columns = {column["path_in_schema"]: column for column in group.to_dict()["columns"]}
    assert {column["compression"] for column in columns.values()} == {"ZSTD"}
    dictionaries = {name for name, column in columns.items() if "RLE_DICTIONARY" in column["encodings"]}
    assert dictionaries == {"status", "finish_reason", "error", "choices.list.element", "messages.list.element.role"}
    split = {name for name, column in columns.items() if "BYTE_STREAM_SPLIT" in column["encodings"]}
    assert split == {
        "target",
        "label_logprobs.list.element",
        "residual_mass",
        "reply_ids.list.element",
        "topk_ids.list.element.list.element",
        "reply_logprobs.list.element",
        "embedding.list.element",
        "latency_ms",
    }


def test_the_later_answer_wins_within_a_journal(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", [make_row(0, reply="a"), make_row(1, reply="a"), make_row(0, reply="b")])
        folder.append("train", [make_row(0, reply="c")])
        folder.seal()
    assert read_replies(folder) == {"row-0": "c", "row-1": "a"}
    assert folder.manifest.superseded == Superseded(2, 2 * COST_USD)


def test_superseded_rows_leave_their_shards_and_their_cost_stays(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0, 1, 2, reply="old"))
        folder.seal()
        folder.append("train", make_rows(3, 4, reply="old"))
        folder.seal()
        untouched = folder.manifest.shards[1]
        folder.append("train", [make_row(1, reply="new", cost_usd=1.0)])
        folder.append("dev", [make_row(0, reply="dev")])
        folder.seal()
    assert read_replies(folder) == {"row-0": "old", "row-1": "new", "row-2": "old", "row-3": "old", "row-4": "old"}
    manifest = load_manifest(folder.path)
    assert manifest.superseded == Superseded(1, COST_USD)
    assert untouched in manifest.shards
    assert sum_costs(shard.cost_usd for shard in manifest.shards_of("train")) == 4 * COST_USD + 1.0
    assert sorted(path.relative_to(folder.path).as_posix() for path in folder.path.glob("split=*/*")) == sorted(
        shard.path for shard in manifest.shards
    )


def test_a_shard_whose_rows_were_all_superseded_is_retired(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append("dev", [make_row(n, status=Status.UNASKED, cost_usd=0.0) for n in range(3)])
        folder.seal()
        (unasked,) = folder.manifest.shards
        folder.append("dev", make_rows(0, 1, 2))
        folder.seal()
    assert [shard.rows for shard in folder.manifest.shards] == [3]
    assert folder.manifest.retired == (unasked.id,)
    assert [row["status"] for row in read_parquet_files(folder.path, "dev")] == ["ok"] * 3


def test_other_draws_of_a_row_are_other_rows(tmp_path: Path) -> None:
    first = make_row(0)
    second = type(first)(first.example, first.request_key, 1, first.answer)
    with open_folder(tmp_path) as folder:
        folder.append("train", [first])
        folder.seal()
        folder.append("train", [second])
        folder.seal()
    assert [row["draw"] for row in read_parquet_files(folder.path)] == [0, 1]
    assert folder.manifest.superseded == Superseded()


def test_bytes_are_durable_before_names_and_names_before_anything_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def watch(name: str, shown: Callable[..., object]) -> None:
        original = getattr(os, name)

        def call(*args: object) -> object:
            order.append(f"{name} {Path(str(shown(*args))).name.partition('-')[0]}")
            return original(*args)

        monkeypatch.setattr(os, name, call)

    with open_folder(tmp_path) as folder:
        folder.append("train", make_rows(0, 1))
        folder.seal()
        folder.append("train", make_rows(0))
        folder.commit()
        watch("fsync", lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
        watch("replace", lambda source, target: target)
        watch("unlink", lambda path: path)
        folder.seal()
        monkeypatch.undo()
    assert order == [
        *("fsync .part", "replace part", "fsync split=train"),  # the new rows
        *("fsync .part", "replace part", "fsync split=train"),  # the shard that lost one
        *(f"fsync .manifest.json.{os.getpid()}.tmp", "replace manifest.json", "fsync teacher=tiny"),
        *("unlink w0.arrows", "fsync split=train"),
        *("unlink part", "fsync split=train"),
    ]


def test_sealing_nothing_writes_nothing(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        before = (folder.path / "manifest.json").read_bytes()
        folder.seal()
        folder.seal("train")
        assert (folder.path / "manifest.json").read_bytes() == before
        assert not list(folder.path.glob("split=*"))
