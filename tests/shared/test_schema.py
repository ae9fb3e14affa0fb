"""A row's way into Arrow and back."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.example import Example, Message
from shared.schema import (
    SCHEMA_VERSION,
    Answer,
    Row,
    Status,
    row_schema,
    row_schema_of,
    rows_to_batch,
    sum_column,
    sum_costs,
    upgrade_table,
)
from shared.shards import iterate_rows

FULL = Row(
    Example(
        *("a-1", "text", "pair", ("x", "y")),
        label=1,
        label_set=(0, 1),
        references=("right", "also right"),
        messages=(Message("user", "text"), Message("assistant", "and?")),
    ),
    "ab" * 32,
    3,
    Answer(
        Status.OK,
        reply="yes",
        finish_reason="stop",
        label_logprobs=(-0.25, -2.0),
        residual_mass=0.125,
        reply_ids=(1, 5),
        reply_logprobs=(-0.5, -3.0),
        topk_ids=((1, 2), (3,)),
        topk_logprobs=((-0.5, -1.0), (-0.25,)),
        topk_tail=(-3.5, -1.5),
        embedding=np.array([0.5, -1.5, 2.0], np.float32),
        raw=b"{}",
        image_sha256=("cd" * 32,),
        prompt_tokens=5,
        completion_tokens=1,
        cost_usd=0.5,
        latency_ms=1.5,
        asked_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        attempts=2,
    ),
)
BARE = Row(Example("a-2", "text"), "00" * 32, 0, Answer(Status.FAILED, error="no reply"))


def test_a_row_comes_back_as_it_went_in() -> None:
    batch = rows_to_batch([FULL, BARE], row_schema())
    full, bare = iterate_rows(pa.Table.from_batches([batch]))
    assert bare == BARE
    assert full.example == FULL.example
    for name in Answer.__dataclass_fields__:
        np.testing.assert_equal(
            np.asarray(getattr(full.answer, name), object).tolist(), _plain(getattr(FULL.answer, name))
        )


def _plain(value: object) -> object:
    def listed(item: object) -> object:
        return [listed(i) for i in item] if isinstance(item, tuple) else item

    return value.tolist() if isinstance(value, np.ndarray) else listed(value)


@pytest.mark.parametrize(("kind", "dtype"), [(pa.float16(), np.float16), (pa.float32(), np.float32)])
def test_vectors_are_kept_at_the_recipes_precision(kind: pa.DataType, dtype: type) -> None:
    vector = np.linspace(-1, 1, 7)
    row = Row(BARE.example, BARE.request_key, 0, Answer(Status.OK, embedding=vector))
    batch = rows_to_batch([row], row_schema(kind))
    assert batch["embedding"].type == pa.list_(kind)
    assert batch["embedding"][0].values.to_numpy().tolist() == vector.astype(dtype).tolist()


def test_the_schema_carries_its_version_and_says_what_may_be_missing() -> None:
    schema = row_schema()
    assert schema.metadata == {b"harvest_distill.schema_version": str(SCHEMA_VERSION).encode()}
    required = {field.name for field in schema if not field.nullable}
    assert required == {"sample_id", "text", "request_key", "draw", "status", "attempts"}


def test_rows_of_version_2_are_read_with_no_label_sets() -> None:
    old = row_schema_of(2)
    assert "label_set" not in old.names
    table = pa.Table.from_batches([rows_to_batch([FULL, BARE], row_schema())]).select(old.names).cast(old)
    read = upgrade_table(table)
    assert read.schema.names == row_schema().names
    assert read["label_set"].null_count == 2
    assert read.select(["label", "text", "topk_tail"]).equals(table.select(["label", "text", "topk_tail"]))


@pytest.mark.parametrize("labels", [("negative", "positive"), ()])
def test_the_datasets_library_shows_the_names_of_labels(labels: tuple[str, ...], tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Value

    schema = row_schema(labels=labels)
    path = tmp_path / "shard.parquet"
    pq.write_table(pa.Table.from_batches([rows_to_batch([FULL, BARE], schema)]), path)
    dataset = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    found = dataset.features["label"]
    assert found == (ClassLabel(names=list(labels)) if labels else Value("int64"))
    assert dataset["label"] == [1, None]
    assert dataset[0]["messages"] == [{"role": "user", "content": "text"}, {"role": "assistant", "content": "and?"}]
    assert dataset["label_set"] == [[0, 1], None]
    if labels:
        assert found.int2str(dataset[0]["label"]) == "positive"
        assert dataset.features["label_set"].feature == found


def test_a_row_without_a_known_price_makes_a_sum_unknown() -> None:
    assert sum_costs([0.25, 0.5]) == 0.75
    assert sum_costs([]) == 0
    assert sum_costs([0.25, None]) is None
    assert sum_column(pa.chunked_array([[0.25], [None]], pa.float64())) is None
    assert sum_column(pa.chunked_array([], pa.float64())) == 0
