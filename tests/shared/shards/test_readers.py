"""A sealed folder opens in other people's tools, with no help from this package."""

from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import polars as pl
import pyarrow.dataset as ds
import pytest

from shared.shards import TeacherFolder
from tests.shared.shards.shard_rows import make_manifest, make_row, make_rows

IDS = [f"row-{number}" for number in range(6)]
SPLITS = ["train"] * 4 + ["dev"] * 2


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """Two sealed train shards, one dev shard, and a train row that waits in the journal, beside the manifest."""
    with TeacherFolder.open(tmp_path / "reviews", make_manifest("tiny-vlm")) as folder:
        folder.append("train", make_rows(0, 1))
        folder.append("dev", make_rows(4, 5))
        folder.seal()
        folder.append("train", [make_row(2), make_row(3, topk_ids=None, topk_logprobs=None, embedding=None)])
        folder.seal()
        folder.append("train", make_rows(9))
    return tmp_path / "reviews"


def assert_values(rows: list[dict[str, Any]]) -> None:
    """The rows, by sample id, have the values of make_row."""
    assert [row["sample_id"] for row in rows] == IDS
    for number, row in enumerate(rows):
        assert row["text"] == f"text number {number}"
        assert row["label_logprobs"] == [-0.25, -1.5]
        assert row["residual_mass"] == 0.0078125
        if number == 3:
            assert row["topk_ids"] is row["topk_logprobs"] is row["embedding"] is None
        else:
            assert row["topk_ids"] == [[7, 8], [9]]
            assert row["topk_logprobs"] == [[-0.5, -1.0], [-0.125]]
            assert list(row["embedding"]) == [number, number + 1, number + 2, number + 3]


def test_polars(task_folder: Path) -> None:
    frame = pl.scan_parquet(task_folder / "**" / "*.parquet", hive_partitioning=True).sort("sample_id").collect()
    assert frame["split"].to_list() == SPLITS
    assert frame["teacher"].unique().to_list() == ["tiny-vlm"]
    assert frame.schema["embedding"] == pl.List(pl.Float16)
    assert_values(frame.to_dicts())


def test_duckdb(task_folder: Path) -> None:
    query = f"select * from read_parquet('{task_folder}/**/*.parquet', hive_partitioning=true) order by sample_id"
    found = duckdb.sql(query)
    assert found is not None
    rows = [dict(zip(found.columns, values, strict=True)) for values in found.fetchall()]
    assert [row["split"] for row in rows] == SPLITS
    assert {row["teacher"] for row in rows} == {"tiny-vlm"}
    assert_values(rows)


def test_pyarrow_dataset(task_folder: Path) -> None:
    # Arrow takes every file of a folder for data; the manifest and the journals are not Parquet.
    data = ds.dataset(task_folder, format="parquet", partitioning="hive", exclude_invalid_files=True)
    table = data.to_table(filter=ds.field("teacher") == "tiny-vlm").sort_by("sample_id")
    assert table["split"].to_pylist() == SPLITS
    assert table.schema.field("embedding").type.value_type == "halffloat"
    assert_values(table.to_pylist())


def test_datasets(task_folder: Path, tmp_path: Path) -> None:
    files = {split: f"{task_folder}/teacher=tiny-vlm/split={split}/*.parquet" for split in ("train", "dev")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split].num_rows for split in loaded} == {"train": 4, "dev": 2}
    rows = sorted((row for split in loaded.values() for row in split), key=lambda row: row["sample_id"])
    assert_values(rows)
    assert loaded["dev"].features["embedding"].feature.dtype == "float16"
    assert np.asarray(loaded["dev"].with_format("numpy")[0]["embedding"]).tolist() == [4, 5, 6, 7]
