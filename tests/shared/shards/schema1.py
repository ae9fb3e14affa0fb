"""Folders as schema 1 wrote them, for the tests that read them. Its columns are spelt out: today's code has others."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.shards import Manifest
from shared.shards.journal import Journal

SCHEMA_1 = pa.schema(
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
        pa.field("embedding", pa.list_(pa.float16())),
        pa.field("raw", pa.binary()),
        pa.field("error", pa.string()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("completion_tokens", pa.int32()),
        pa.field("cost_usd", pa.float64(), nullable=False),
        pa.field("latency_ms", pa.float32()),
        pa.field("asked_at", pa.timestamp("us", tz="UTC")),
        pa.field("attempts", pa.int32(), nullable=False),
    ],
    metadata={"harvest_distill.schema_version": "1"},
)
_REQUIRED = {"draw": 0, "status": "ok", "cost_usd": 0.0, "attempts": 1}


def write_folder(
    task_folder: Path,
    manifest: Manifest,
    sealed: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    waiting: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    worker: str = "w0",
) -> Path:
    """Write teacher=<name>/ with one shard for each group of rows in `sealed`, by split, and a journal of `waiting`."""
    folder = task_folder / f"teacher={manifest.teacher}"
    shards = []
    for split, groups in sealed.items():
        (folder / f"split={split}").mkdir(parents=True, exist_ok=True)
        for number, rows in enumerate(groups):
            path = folder / f"split={split}" / f"part-{number:05d}-{worker}-{number:012x}.parquet"
            pq.write_table(pa.Table.from_batches([make_batch(rows)]), path, compression="zstd")
            content = path.read_bytes()
            shard = {
                "path": path.relative_to(folder).as_posix(),
                "split": split,
                "rows": len(rows),
                "bytes": len(content),
                "sha256": sha256(content).hexdigest(),
                "cost_usd": sum(row.get("cost_usd", 0.0) for row in rows),
            }
            shards.append(shard)
    planned = {split: sum(map(len, groups)) for split, groups in sealed.items()}
    for split, rows in (waiting or {}).items():
        planned[split] = planned.get(split, 0) + len(rows)
        journal = Journal.open(folder / "journal" / f"split={split}" / f"{worker}.arrows", SCHEMA_1)
        journal.append(make_batch(rows))
        journal.sync()
        journal.close()
    told = {**asdict(manifest), "shards": shards, "planned": planned, "schema_version": 1}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def make_batch(rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
    """A record batch of rows given by column; what they do not name is null, or what most rows have."""
    filled = [{**_REQUIRED, **row} for row in rows]
    columns = []
    for field in SCHEMA_1:
        values = [row.get(field.name) for row in filled]
        kind = field.type
        if field.name == "embedding":
            values = [None if one is None else np.asarray(one, np.float16) for one in values]
        columns.append(pa.array(values, kind))
    return pa.record_batch(columns, schema=SCHEMA_1)
