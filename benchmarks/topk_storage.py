"""Bytes of a token's top K on disk, and what their rounding does to a divergence.

    python benchmarks/topk_storage.py --teacher data/reviews/teacher=scorer [--topk 20 50]

Reads the top K that a teacher folder keeps (`harvest run --teacher scorer --top-logprobs 50 ...`: ids and numbers of a
real model on text), cuts them to each K, and writes them with the writer that harvest uses, in the row groups that it
makes. Prints one JSON line: for each K the bytes a token of `topk_ids`, `topk_logprobs` and `topk_tail`; and in nats a
token, over K+1 buckets, the mean divergence of what is read back from what was kept. A folder's own numbers are rounded
already; `--exact FILE` names a .npz of `ids`, `logprobs`, `tail` (n, K), (n, K), (n,) in float32 and of `lengths`, how
many of the n tokens each row has, and then the divergence is from the exact numbers.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards import Manifest, TeacherFolder, iterate_pieces, load_manifest
from shared.topk import TOPK_COLUMNS, TopK, decode_topk

COLUMNS = ("topk_ids", "topk_logprobs", "topk_tail")


def read_exact(path: Path) -> list[TopK]:
    """The rows of a .npz file."""
    kept = np.load(path)
    ends = np.cumsum(kept["lengths"])[:-1]
    parts = (np.split(kept[name], ends) for name in ("ids", "logprobs", "tail"))
    return [TopK(*row) for row in zip(*parts, strict=True)]


def read_folder(path: Path) -> list[TopK]:
    """The rows of a teacher folder that have a top K."""
    found: list[TopK] = []
    for piece in iterate_pieces(path, load_manifest(path), TOPK_COLUMNS):
        found += [row for row in decode_topk(piece.table, range(piece.table.num_rows)) if row is not None]
    return found


def cut(row: TopK, topk: int) -> TopK:
    """The same with a smaller K: what is cut goes to the tail."""
    logprobs = row.logprobs.astype(np.float64)
    rest = np.logaddexp.reduce(logprobs[:, topk:], axis=1, initial=-np.inf)
    tail = np.logaddexp(row.tail, rest).astype(np.float32)
    return TopK(row.ids[:, :topk], row.logprobs[:, :topk], tail)


def write(rows: Sequence[TopK], folder: Path) -> tuple[dict[str, float], list[TopK]]:
    """Keep `rows` in a new folder; give the compressed bytes of each column, and what is read back."""
    manifest = Manifest("t", "bench", "generation", (), "exact_match", {"teacher": "bench"}, "made here")
    with TeacherFolder.open(folder, manifest) as opened:
        opened.append("train", [_make_row(number, row) for number, row in enumerate(rows)])
        opened.commit()
        opened.seal()
        (shard,) = opened.manifest.shards
        footer = pq.ParquetFile(opened.path / shard.path).metadata
        sizes = dict.fromkeys(COLUMNS, 0.0)
        for group in range(footer.num_row_groups):
            for number in range(footer.num_columns):
                column = footer.row_group(group).column(number)
                if (name := column.path_in_schema.partition(".")[0]) in sizes:
                    sizes[name] += column.total_compressed_size
        return sizes, read_folder(opened.path)


def _make_row(number: int, row: TopK) -> Row:
    answer = Answer(
        Status.OK, topk_ids=row.ids.tolist(), topk_logprobs=row.logprobs.tolist(), topk_tail=row.tail.tolist()
    )
    return Row(Example(str(number), "text"), f"{number:064x}", 0, answer)


def measure_divergence(exact: Sequence[TopK], read: Sequence[TopK]) -> float:
    """The mean KL in nats a token of K+1 buckets."""
    total, tokens = 0.0, 0
    for one, other in zip(exact, read, strict=True):
        p, q = (np.concatenate([row.logprobs, row.tail[:, None]], 1, dtype=np.float64) for row in (one, other))
        p -= np.logaddexp.reduce(p, axis=1, keepdims=True)
        q -= np.logaddexp.reduce(q, axis=1, keepdims=True)
        total += float((np.exp(p) * (p - q)).sum())
        tokens += len(p)
    return total / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--teacher", type=Path)
    source.add_argument("--exact", type=Path)
    parser.add_argument("--topk", type=int, nargs="+", default=[20, 50])
    arguments = parser.parse_args()
    rows = read_folder(arguments.teacher) if arguments.teacher else read_exact(arguments.exact)
    tokens = sum(len(row.tail) for row in rows)
    report: dict[str, Any] = {"rows": len(rows), "tokens": tokens}
    for topk in arguments.topk:
        kept = [cut(row, topk) for row in rows]
        with tempfile.TemporaryDirectory() as folder:
            sizes, read = write(kept, Path(folder))
        bytes_a_token = {name: round(size / tokens, 2) for name, size in sizes.items()}
        report[f"top {topk}"] = {
            **bytes_a_token,
            "all": round(sum(sizes.values()) / tokens, 2),
            "kl": measure_divergence(kept, read),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
