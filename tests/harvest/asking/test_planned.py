"""Rows that are encoded as columns are those that are encoded one by one."""

import random

import pyarrow as pa
import pytest

from harvest.asking.planned import AnsweredRows, Place, encode_answered, place_answers
from shared.schema import answers_to_batch, row_schema, rows_to_batch
from tests.harvest.answered import make_answered, make_planned
from tests.shared.shards.shard_rows import make_rows
from tests.shared.test_schema import BARE, FULL

ROWS = [FULL, BARE, *make_rows(*range(20))]


def encode(rows: AnsweredRows) -> AnsweredRows:
    """The same with the answers as a replica sends them."""
    assert isinstance(rows.answers, list)
    return rows._replace(answers=answers_to_batch(rows.answers))


def sort(batch: pa.RecordBatch) -> list[object]:
    rows: list[object] = batch.sort_by("request_key").to_pylist()
    return rows


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
def test_columns_hold_what_rows_do(kind: pa.DataType) -> None:
    schema = row_schema(kind, ("no", "yes"))
    batch = encode_answered([make_answered(*ROWS)], schema)
    assert batch.equals(rows_to_batch(ROWS, schema))
    assert batch.schema.metadata == schema.metadata


def test_rows_of_several_parts_of_the_source_and_answers_of_both_kinds_go_together() -> None:
    first, second = make_answered(*ROWS[:10]), encode(make_answered(*ROWS[10:]))
    parts = [
        AnsweredRows(one.rows, one.numbers[start : start + 3], one.keys[start : start + 3], answers)
        for one in (first, second)
        for start in range(0, len(one.keys), 3)
        for answers in [
            one.answers.slice(start, 3) if isinstance(one.answers, pa.RecordBatch) else one.answers[start : start + 3]
        ]
    ]
    random.Random(0).shuffle(parts)
    assert sort(encode_answered(parts, row_schema())) == sort(rows_to_batch(ROWS, row_schema()))


def test_answers_find_the_rows_that_they_are_of() -> None:
    one, other = (make_planned([row.example for row in rows], [0] * len(rows)) for rows in (ROWS[:3], ROWS[3:5]))
    places = [Place(one, 2), Place(one, 0), Place(other, 1), Place(one, 1)]
    answers = [ROWS[at].answer for at in (2, 0, 4, 1)]
    for given in (answers, answers_to_batch(answers)):
        found = list(place_answers(places, "abcd", given))
        assert [(rows.rows, list(rows.numbers), "".join(rows.keys)) for rows in found] == [
            (one, [2, 0], "ab"),
            (other, [1], "c"),
            (one, [1], "d"),
        ]
        assert pa.Table.from_batches(
            [
                rows.answers if isinstance(rows.answers, pa.RecordBatch) else answers_to_batch(rows.answers)
                for rows in found
            ]
        ).combine_chunks().to_batches() == [answers_to_batch(answers)]
