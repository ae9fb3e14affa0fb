"""Rows of a plan as columns, and those that have an answer on their way to the journal."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from harvest.teachers.base import Answers
from shared.schema import Status, answers_to_batch, find_vector_type, join_batch

if TYPE_CHECKING:
    import polars as pl


AnswerOutcome: TypeAlias = tuple[Status, str | None, float | None]  # status, error, dollars
_STATUSES = {str(status): status for status in Status}


@dataclass(frozen=True, slots=True, eq=False)
class PlannedRows:
    """Some rows of a split, in the order of the source.

    `examples` are the columns of LoadedTask.frames but pictures, which no shard holds; `draws` and `actions` have one
    entry a row.
    """

    split: str
    examples: "pl.DataFrame"
    draws: np.ndarray[Any, np.dtype[np.int32]]
    actions: np.ndarray[Any, np.dtype[np.uint8]]


class Place(NamedTuple):
    """Which row a request asks about."""

    rows: PlannedRows
    number: int


class AnsweredRows(NamedTuple):
    """Rows of `rows`, by their `numbers`, each with its request's key and its answer."""

    rows: PlannedRows
    numbers: Sequence[int]
    keys: Sequence[str]
    answers: Answers


def list_outcomes(answers: Answers) -> list[AnswerOutcome]:
    """List the status, the error and the dollars of each answer."""
    if isinstance(answers, pa.RecordBatch):
        columns = (answers[name].to_pylist() for name in ("status", "error", "cost_usd"))
        return [(_STATUSES[status], error, cost) for status, error, cost in zip(*columns, strict=True)]
    return [(one.status, one.error, one.cost_usd) for one in answers]


def place_answers(places: Sequence[Place], keys: Sequence[str], answers: Answers) -> Iterator[AnsweredRows]:
    """Put answers, in the order of their requests' places and keys, with the rows that they are of."""
    start = 0
    while start < len(places):
        rows, numbers = places[start].rows, []
        for place in islice(places, start, None):
            if place.rows is not rows:
                break
            numbers.append(place.number)
        end = start + len(numbers)
        own = answers.slice(start, len(numbers)) if isinstance(answers, pa.RecordBatch) else answers[start:end]
        yield AnsweredRows(rows, numbers, keys[start:end], own)
        start = end


def encode_answered(parts: Sequence[AnsweredRows], schema: pa.Schema) -> pa.RecordBatch:
    """Make one record batch of `schema` (see row_schema) of rows of one split, in any order."""
    import polars as pl

    by_source: dict[int, list[AnsweredRows]] = defaultdict(list)
    for part in parts:
        by_source[id(part.rows)].append(part)
    frames, answers = [], []
    for some in by_source.values():
        numbers = [number for part in some for number in part.numbers]
        keys = pl.Series("request_key", [key for part in some for key in part.keys], pl.String)
        draws = pl.Series("draw", some[0].rows.draws[numbers])
        frames.append(some[0].rows.examples[numbers].with_columns(keys, draws))
        answers += [part.answers for part in some]
    return join_batch(pl.concat(frames), _encode_answers(answers, find_vector_type(schema)), schema)


def _encode_answers(answers: Sequence[Answers], vector_type: pa.DataType | None) -> pa.RecordBatch:
    """Make one record batch of them all; those that came one by one are encoded together."""
    batches: list[pa.RecordBatch] = []
    for is_encoded, run in groupby(answers, lambda part: isinstance(part, pa.RecordBatch)):
        some = list(run)
        batches += some if is_encoded else [answers_to_batch(list(chain.from_iterable(some)), vector_type)]
    return pa.concat_batches(batches)
