"""A row of a shard: one example, the request made of it, and the teacher's answer; and its Arrow schema.

The schema is the contract between the two stages. Its version stands in the manifest and in every file: a reader
refuses a newer one, and reads an older one as if it were this (see upgrade_table).

Version 2 adds `messages`, `references`, `reply_ids`, `reply_logprobs` and `topk_tail`, lets `cost_usd` be null, and
makes `label` an int64, which is what the `datasets` library wants of a column with named classes. Version 3 adds
`label_set`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.example import Example, Message
from shared.topk import round_logprobs

if TYPE_CHECKING:
    import polars as pl

SCHEMA_VERSION = 3
_VERSION_KEY = b"harvest_distill.schema_version"
# Columns by the version that has them first.
_ADDED = {2: ("messages", "references", "reply_ids", "reply_logprobs", "topk_tail"), 3: ("label_set",)}


class Status(StrEnum):
    """How a request ended."""

    OK = "ok"
    TRUNCATED = "truncated"  # the reply hit its length limit
    REFUSED = "refused"  # the teacher declined to answer: a content filter, say
    UNPARSABLE = "unparsable"  # a reply came, but not in the form that was asked for; `raw` keeps it
    FAILED = "failed"  # no reply came, or the request could not be made; `error` says why
    UNASKED = "unasked"  # a row of a split that only scores the student: carried along, the teacher was not asked


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request brought back, and its bill.

    `label_logprobs` are natural logs, one a label of the task, never renormalised: with `residual_mass`, the
    probability on no label, their exponentials sum to 1. Where a row may have several labels (multilabel), each is that
    of its label being among them, whatever the others: they need not sum to 1, and `residual_mass` is 0.

    Of a reply of n tokens, `reply_ids` and `reply_logprobs` are the tokens that were said and their natural
    log-probabilities, shape (n,), the end token included where the engine reports it. `topk_ids` and `topk_logprobs`
    hold one list a token: the K most probable ones, among which the said one need not be (vLLM's server puts it in the
    place of the last). `topk_tail`, shape (n,), is the natural log of what the probabilities of those K lack to 1, from
    the numbers as they came, before any rounding.

    `embedding` is the teacher's vector h_t, shape (d,). `cost_usd` is None where no price is known.
    """

    status: Status
    reply: str | None = None
    finish_reason: str | None = None
    label_logprobs: Sequence[float] | None = None
    residual_mass: float | None = None
    reply_ids: Sequence[int] | None = None
    reply_logprobs: Sequence[float] | None = None
    topk_ids: Sequence[Sequence[int]] | None = None
    topk_logprobs: Sequence[Sequence[float]] | None = None
    topk_tail: Sequence[float] | None = None
    embedding: np.ndarray[Any, np.dtype[np.floating[Any]]] | None = None
    raw: bytes | None = None
    error: str | None = None
    image_sha256: Sequence[str] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = 0.0
    latency_ms: float | None = None
    asked_at: datetime | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One answered request. `draw` numbers repeated samples of the same request, from 0."""

    example: Example
    request_key: str
    draw: int
    answer: Answer


def row_schema(vector_type: pa.DataType | None = None, labels: Sequence[str] = ()) -> pa.Schema:
    """Build the Arrow schema of a row.

    `vector_type` is the element type of `embedding`, float16 unless given. `labels` are the names of the classes: they
    go into the schema's metadata as Hugging Face's ClassLabel, so that `datasets.load_dataset("parquet", ...)` shows
    names (https://huggingface.co/docs/datasets/package_reference/main_classes#datasets.Features).

    `topk_logprobs` and `topk_tail` are float16, rounded further to what shared.topk.KEPT_BITS says. `reply_logprobs` is
    float32: one number a token costs little, and they are summed over whole replies.
    """
    vector_type = vector_type or pa.float16()
    message = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("text_pair", pa.string()),
            pa.field("messages", pa.list_(message)),
            pa.field("choices", pa.list_(pa.string())),
            pa.field("label", pa.int64()),
            pa.field("label_set", pa.list_(pa.int64())),
            pa.field("target", pa.float32()),
            pa.field("target_text", pa.string()),
            pa.field("references", pa.list_(pa.string())),
            pa.field("request_key", pa.string(), nullable=False),
            pa.field("draw", pa.int32(), nullable=False),
            pa.field("image_sha256", pa.list_(pa.string())),
            pa.field("status", pa.string(), nullable=False),
            pa.field("reply", pa.string()),
            pa.field("finish_reason", pa.string()),
            pa.field("label_logprobs", pa.list_(pa.float32())),
            pa.field("residual_mass", pa.float32()),
            pa.field("reply_ids", pa.list_(pa.int32())),
            pa.field("reply_logprobs", pa.list_(pa.float32())),
            pa.field("topk_ids", pa.list_(pa.list_(pa.int32()))),
            pa.field("topk_logprobs", pa.list_(pa.list_(pa.float16()))),
            pa.field("topk_tail", pa.list_(pa.float16())),
            pa.field("embedding", pa.list_(vector_type)),
            pa.field("raw", pa.binary()),
            pa.field("error", pa.string()),
            pa.field("prompt_tokens", pa.int32()),
            pa.field("completion_tokens", pa.int32()),
            pa.field("cost_usd", pa.float64()),
            pa.field("latency_ms", pa.float32()),
            pa.field("asked_at", pa.timestamp("us", tz="UTC")),
            pa.field("attempts", pa.int32(), nullable=False),
        ],
        metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode(), **_name_classes(labels)},
    )


def _name_classes(labels: Sequence[str]) -> dict[bytes, bytes]:
    """The schema metadata in which `datasets` looks for the features that an Arrow type does not tell."""
    if not labels:
        return {}
    named = {"names": list(labels), "_type": "ClassLabel"}
    features = {"label": named, "label_set": {"feature": named, "_type": "Sequence"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False).encode()}


def row_schema_of(version: int, vector_type: pa.DataType | None = None) -> pa.Schema:
    """Build the schema that `version` wrote, for checking a file of it. Its metadata is only the version."""
    fields = [field for field in row_schema(vector_type) if field.name not in _list_added(version)]
    if version < 2:
        older = {"label": pa.field("label", pa.int32()), "cost_usd": pa.field("cost_usd", pa.float64(), nullable=False)}
        fields = [older.get(field.name, field) for field in fields]
    return pa.schema(fields, metadata={_VERSION_KEY: str(version).encode()})


def read_version(schema: pa.Schema) -> int:
    """The version of the schema that a file's own schema says; this one where it says none."""
    return int((schema.metadata or {}).get(_VERSION_KEY, SCHEMA_VERSION))


def find_vector_type(schema: pa.Schema) -> pa.DataType | None:
    """The element type of `embedding` in a file's schema; None where there is no such list."""
    at = schema.get_field_index("embedding")
    return schema.field(at).type.value_type if at >= 0 and pa.types.is_list(schema.field(at).type) else None


def find_added(schema: pa.Schema) -> frozenset[str]:
    """The columns of this version that a file of an older one cannot have: they are read as null."""
    return _list_added(read_version(schema))


def _list_added(version: int) -> frozenset[str]:
    return frozenset(name for since, names in _ADDED.items() if since > version for name in names)


def upgrade_table(table: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
    """Bring rows of an older version to this one: columns that it lacks are null, all others keep their values.

    `names` are the columns that are wanted, all unless given. Columns that no version knows are left out.
    """
    schema = row_schema(find_vector_type(table.schema))
    fields = [
        field
        for field in schema
        if (names is None or field.name in names)
        and (field.name in table.column_names or field.name in find_added(table.schema))
    ]
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in fields
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=schema.metadata))


def sum_costs(costs: Iterable[float | None]) -> float | None:
    """US dollars of several things together; None, which is "unknown", where that of one of them is not known."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def sum_column(costs: pa.ChunkedArray) -> float | None:
    """sum_costs of a column of a table; 0 of an empty one."""
    return None if costs.null_count else float(pc.sum(costs, min_count=0).as_py())


_EXAMPLE_FIELDS = tuple(Example.__dataclass_fields__)
_ANSWER_FIELDS = tuple(Answer.__dataclass_fields__)


def rows_to_batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """`rows` as one Arrow record batch of `schema` (see row_schema)."""
    columns: dict[str, list[Any]] = {
        "request_key": [r.request_key for r in rows],
        "draw": [r.draw for r in rows],
    }
    for name in _EXAMPLE_FIELDS:
        columns[name] = [getattr(r.example, name) for r in rows]
    columns["messages"] = [_spell_messages(messages) for messages in columns["messages"]]
    answers = answers_to_batch([r.answer for r in rows], find_vector_type(schema))
    made = [
        answers[field.name] if field.name in _ANSWER_FIELDS else make_column(columns[field.name], field)
        for field in schema
    ]
    return pa.record_batch(made, schema=schema)


def answer_schema(vector_type: pa.DataType | None = None) -> pa.Schema:
    """Build the Arrow schema of an answer: those columns of row_schema, without its metadata."""
    return pa.schema([field for field in row_schema(vector_type) if field.name in _ANSWER_FIELDS])


def answers_to_batch(answers: Sequence[Answer], vector_type: pa.DataType | None = None) -> pa.RecordBatch:
    """`answers` as one Arrow record batch of answer_schema."""
    schema = answer_schema(vector_type)
    columns = [make_column([getattr(one, field.name) for one in answers], field) for field in schema]
    return pa.record_batch(columns, schema=schema)


def batch_to_answers(batch: pa.RecordBatch | pa.Table) -> Iterator[Answer]:
    """The answers of what has all columns of answer_schema."""
    columns = {name: batch[name].to_pylist() for name in _ANSWER_FIELDS if name not in ("status", "embedding")}
    statuses, vectors = batch["status"].to_pylist(), batch["embedding"]
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        vector = vectors[number].values
        yield Answer(
            Status(statuses[number]),
            embedding=None if vector is None else vector.to_numpy(zero_copy_only=False),
            **dict(zip(columns, values, strict=True)),
        )


def join_batch(requests: "pl.DataFrame", answers: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Put answers (answer_schema) beside their examples and requests; one Arrow record batch of `schema`.

    `requests` has the other columns of row_schema, one row an answer, in polars' types: texts, lists and numbers.
    """
    import polars as pl

    table = requests.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    made = [
        answers[field.name] if field.name in _ANSWER_FIELDS else _cast_column(table[field.name], field.type)
        for field in schema
    ]
    return pa.record_batch(made, schema=schema)


def _cast_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    if column.null_count == len(column):
        return pa.nulls(len(column), kind)
    return column.combine_chunks().cast(kind)


def make_column(values: Sequence[Any], field: pa.Field) -> pa.Array:
    """An Arrow array of `values`, numbers rounded to the precision of `field`, which Arrow refuses for float16."""
    kind = field.type
    if field.name == "topk_tail":
        values = [None if one is None else round_logprobs(one) for one in values]
    elif field.name == "topk_logprobs":
        values = [None if one is None else _round_positions(one) for one in values]
    numbers = kind.value_type if pa.types.is_list(kind) else None
    if numbers is not None and pa.types.is_floating(numbers):
        return _make_lists(values, kind)
    if numbers is not None and pa.types.is_list(numbers) and pa.types.is_floating(numbers.value_type):
        dtype = numbers.value_type.to_pandas_dtype()
        values = [None if one is None else [np.asarray(token, dtype) for token in one] for one in values]
    return pa.array(values, kind)


def _make_lists(values: Sequence[Sequence[float] | None], kind: pa.DataType) -> pa.Array:
    """An Arrow array of lists of numbers, all of them rounded at once."""
    present = [np.asarray(one) for one in values if one is not None and len(one)]
    if not present:
        return pa.array(values, kind)
    lengths = [0 if one is None else len(one) for one in values]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    numbers = pa.array(np.concatenate(present).astype(kind.value_type.to_pandas_dtype()), kind.value_type)
    lacking = pa.array([one is None for one in values])
    return pa.ListArray.from_arrays(pa.array(offsets), numbers, type=kind, mask=lacking)


def _round_positions(positions: Sequence[Sequence[float]]) -> list[np.ndarray[Any, np.dtype[np.float16]]]:
    """round_logprobs of each position, all rounded at once."""
    rounded = round_logprobs([logprob for position in positions for logprob in position])
    return np.split(rounded, np.cumsum([len(position) for position in positions])[:-1])


def _spell_messages(messages: Sequence[Message] | None) -> list[dict[str, str]] | None:
    return None if messages is None else [message._asdict() for message in messages]
