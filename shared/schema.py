"""A row of a shard: one example, the request made of it, and the teacher's answer; and its Arrow schema.

The schema is the contract between the two stages. Its version is part of the manifest; a reader refuses a newer one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from shared.example import Example

SCHEMA_VERSION = 1


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
    probability on no label, their exponentials sum to 1. `topk_ids` and `topk_logprobs` hold one list a generated
    token. `embedding` is the teacher's vector h_t, shape (d,).
    """

    status: Status
    reply: str | None = None
    finish_reason: str | None = None
    label_logprobs: Sequence[float] | None = None
    residual_mass: float | None = None
    topk_ids: Sequence[Sequence[int]] | None = None
    topk_logprobs: Sequence[Sequence[float]] | None = None
    embedding: np.ndarray[Any, np.dtype[np.floating[Any]]] | None = None
    raw: bytes | None = None
    error: str | None = None
    image_sha256: Sequence[str] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float = 0.0
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


def row_schema(vector_type: pa.DataType | None = None) -> pa.Schema:
    """The Arrow schema of a row; `vector_type` is the element type of `embedding`, float16 unless given."""
    vector_type = vector_type or pa.float16()
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("text_pair", pa.string()),
            pa.field("choices", pa.list_(pa.string())),
            pa.field("label", pa.int32()),
            pa.field("target", pa.float32()),
            pa.field("target_text", pa.string()),
            pa.field("request_key", pa.string(), nullable=False),
            pa.field("draw", pa.int32(), nullable=False),
            pa.field("image_sha256", pa.list_(pa.string())),
            pa.field("status", pa.string(), nullable=False),
            pa.field("reply", pa.string()),
            pa.field("finish_reason", pa.string()),
            pa.field("label_logprobs", pa.list_(pa.float32())),
            pa.field("residual_mass", pa.float32()),
            pa.field("topk_ids", pa.list_(pa.list_(pa.int32()))),
            pa.field("topk_logprobs", pa.list_(pa.list_(pa.float16()))),
            pa.field("embedding", pa.list_(vector_type)),
            pa.field("raw", pa.binary()),
            pa.field("error", pa.string()),
            pa.field("prompt_tokens", pa.int32()),
            pa.field("completion_tokens", pa.int32()),
            pa.field("cost_usd", pa.float64(), nullable=False),
            pa.field("latency_ms", pa.float32()),
            pa.field("asked_at", pa.timestamp("us", tz="UTC")),
            pa.field("attempts", pa.int32(), nullable=False),
        ],
        metadata={"harvest_distill.schema_version": str(SCHEMA_VERSION)},
    )


_EXAMPLE_FIELDS = ("sample_id", "text", "text_pair", "choices", "label", "target", "target_text")
_ANSWER_FIELDS = tuple(Answer.__dataclass_fields__)


def rows_to_batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """`rows` as one Arrow record batch of `schema` (see row_schema)."""
    columns: dict[str, list[Any]] = {
        "request_key": [r.request_key for r in rows],
        "draw": [r.draw for r in rows],
    }
    for name in _EXAMPLE_FIELDS:
        columns[name] = [getattr(r.example, name) for r in rows]
    for name in _ANSWER_FIELDS:
        columns[name] = [getattr(r.answer, name) for r in rows]
    vector_type = schema.field("embedding").type.value_type.to_pandas_dtype()
    columns["embedding"] = [None if v is None else np.asarray(v, vector_type) for v in columns["embedding"]]
    columns["topk_logprobs"] = [
        None if tokens is None else [np.asarray(token, np.float16) for token in tokens]
        for tokens in columns["topk_logprobs"]
    ]
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
