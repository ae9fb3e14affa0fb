"""A folder of schema 1 is read as it is, and goes on in today's schema."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from shared.schema import SCHEMA_VERSION, Status, row_schema
from shared.shards import (
    TeacherFolder,
    check_readable,
    find_rows,
    iterate_pieces,
    iterate_rows,
    list_row_groups,
    load_manifest,
    read_kept,
    read_row_group,
    summarise_folder,
    verify_shards,
)
from shared.shards.manifest import stamp_owner
from shared.shards.read import GroupReader, cut_row_group
from tests.shared.shards.schema1 import write_folder
from tests.shared.shards.shard_rows import COST_USD, make_key, make_manifest, make_rows


def make_old_rows(*numbers: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "sample_id": f"row-{number}",
            "text": f"text number {number}",
            "label": number % 2,
            "request_key": make_key(number),
            "reply": "old",
            "label_logprobs": [-0.25, -1.5],
            "residual_mass": 0.0078125,
            "embedding": [number, number + 0.5],
            "raw": b"{}",
            "cost_usd": COST_USD,
            **changes,
        }
        for number in numbers
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sealed = {"train": [make_old_rows(0, 1, 2), make_old_rows(3)], "dev": [make_old_rows(0)]}
    return write_folder(tmp_path, make_manifest(), sealed, {"train": make_old_rows(1, 4, reply="waiting")})


def test_every_reader_takes_it_as_it_is(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    manifest = check_readable(folder)
    assert manifest.schema_version == 1
    assert verify_shards(folder.parent).problems == ()
    assert verify_shards(folder).rows == 5
    summary = summarise_folder(folder)
    assert (summary.splits["train"].rows, summary.splits["train"].unsealed) == (5, 2)
    assert (summary.cost_usd, summary.splits["train"].unpriced) == (7 * COST_USD, 0)
    assert len(read_kept(folder, manifest, "train").request_keys) == 5
    rows = [
        row
        for piece in iterate_pieces(folder, manifest, row_schema().names, "train")
        for row in iterate_rows(piece.table.filter(piece.current))
    ]
    assert [(row.example.sample_id, row.answer.reply) for row in rows] == [
        *((f"row-{number}", "old") for number in (0, 2, 3)),
        *((f"row-{number}", "waiting") for number in (1, 4)),
    ]
    for row in rows:
        assert (row.example.references, row.example.messages) == (None, None)
        assert (row.answer.reply_ids, row.answer.topk_tail, row.answer.cost_usd) == (None, None, COST_USD)
    (found,) = find_rows(folder, manifest, [make_key(3)])
    np.testing.assert_array_equal(found.answer.embedding, [3, 3.5])
    assert before == {path: path.read_bytes() for path in before}


def test_named_columns_come_in_todays_types(folder: Path) -> None:
    group, *_ = list_row_groups(folder, load_manifest(folder), "train")
    table = read_row_group(group, ["label", "reply_ids", "embedding"])
    assert table.schema.equals(row_schema().empty_table().select(["label", "reply_ids", "embedding"]).schema)
    assert table["label"].to_pylist() == [0, 1, 0]
    assert table["reply_ids"].null_count == 3
    reader = GroupReader()
    for piece in cut_row_group(group, 2):
        assert piece.first is not None
        assert reader.read(piece, ["label", "reply_ids", "embedding"]) == table.slice(piece.first, piece.rows)


def test_a_run_goes_on_beside_the_old_shards(folder: Path) -> None:
    with TeacherFolder.open(folder.parent, make_manifest()) as writer:
        assert len(writer.kept("train").request_keys) == 5
        writer.append("train", make_rows(5, cost_usd=None))
        writer.append("train", make_rows(0))  # answered again: its old shard is written anew
        writer.seal()
    manifest = load_manifest(folder)
    assert manifest.schema_version == SCHEMA_VERSION
    assert verify_shards(folder).problems == ()
    versions = {
        pq.read_schema(folder / shard.path).metadata[b"harvest_distill.schema_version"]: shard.rows
        for shard in manifest.shards
    }
    assert set(versions) == {b"1", str(SCHEMA_VERSION).encode()}
    rows = {
        row.example.sample_id: row.answer.reply
        for piece in iterate_pieces(folder, manifest, row_schema().names, "train")
        for row in iterate_rows(piece.table.filter(piece.current))
    }
    assert rows == {
        **dict.fromkeys(("row-2", "row-3"), "old"),
        **dict.fromkeys(("row-1", "row-4"), "waiting"),
        **dict.fromkeys(("row-0", "row-5"), "yes"),
    }
    assert manifest.cost_usd is None
    assert summarise_folder(folder).splits["train"].unpriced == 1


def test_the_rows_of_its_journal_outlive_a_kill(folder: Path) -> None:
    """The journal is sealed when the folder is opened; killed right after that, the rows are there once."""
    journal = folder / "journal" / "split=train" / "w0.arrows"
    content = journal.read_bytes()
    for _ in range(2):
        with TeacherFolder.open(folder.parent, make_manifest()) as writer:
            assert len(writer.kept("train").request_keys) == 5
        journal.write_bytes(content)  # as if it had not been removed yet
    assert verify_shards(folder).rows == 6


def test_a_journal_of_another_worker_is_sealed_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, make_manifest(), {}, {"train": make_old_rows(0, 1)}, worker="w3")
    with TeacherFolder.open(tmp_path, make_manifest()) as writer:
        writer.append("train", make_rows(2))
        writer.seal()
    assert verify_shards(folder).problems == ()
    assert sorted(shard.rows for shard in load_manifest(folder).shards) == [1, 2]


def test_a_shard_is_rewritten_in_todays_schema(folder: Path) -> None:
    with TeacherFolder.open(folder.parent, make_manifest()) as writer:
        for shard in writer.manifest.shards:
            writer.rewrite(shard, lambda table: table)
    manifest = load_manifest(folder)
    for shard in manifest.shards:
        schema = pq.read_schema(folder / shard.path)
        assert schema.equals(row_schema())
        owner = stamp_owner(manifest, shard.split)
        assert schema.metadata == {**row_schema(labels=manifest.labels).metadata, **owner}
    assert verify_shards(folder).problems == ()
    assert manifest.cost_usd == 7 * COST_USD
    assert set(read_kept(folder, manifest, "train").statuses) == {list(Status).index(Status.OK)}
