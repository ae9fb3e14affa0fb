"""Rows and manifests for the tests of the shard folder. A module, so that child processes can import it too."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards import Manifest

LABELS = ("no", "yes")
COST_USD = 0.25  # a sum of quarters is exact


def make_manifest(teacher: str = "tiny", **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "task": "reviews",
        "kind": "classification",
        "labels": LABELS,
        "metric": "accuracy",
        "recipe": {"model": "tiny-vlm", "generation": {"temperature": 0.0, "max_tokens": 1}},
        "source": "pkg://reviews",
    }
    return Manifest(teacher=teacher, **{**values, **changes})


def make_row(number: int, reply: str = "yes", status: Status = Status.OK, **changes: Any) -> Row:
    answer: dict[str, Any] = {
        "reply": reply,
        "finish_reason": "stop",
        "label_logprobs": (-0.25, -1.5),
        "residual_mass": 0.0078125,
        "topk_ids": ((7, 8), (9,)),
        "topk_logprobs": ((-0.5, -1.0), (-0.125,)),
        "embedding": np.arange(4, dtype=np.float16) + number,
        "raw": f'{{"reply": {number}}}'.encode(),
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "cost_usd": COST_USD,
        "latency_ms": 12.5,
        "asked_at": datetime(2026, 3, 1, 12, 0, number % 60, tzinfo=UTC),
        "attempts": 1,
    }
    return Row(
        example=Example(f"row-{number}", f"text number {number}", label=number % 2),
        request_key=make_key(number),
        draw=0,
        answer=Answer(status=status, **{**answer, **changes}),
    )


def make_rows(*numbers: int, **changes: Any) -> list[Row]:
    return [make_row(number, **changes) for number in numbers]


def make_key(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def read_parquet_files(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """What somebody who reads the Parquet files, and knows nothing of manifests, sees."""
    tables = [pq.read_table(path, partitioning=None) for path in sorted(folder.glob(f"split={split}/*.parquet"))]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist() if tables else []
    return rows
