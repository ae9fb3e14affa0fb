"""Rows a second from shards to padded batches, against `datasets` in streaming mode; and memory by rows.

    python benchmarks/stream.py [--rows 24576] [--width 768] [--rounds 3]
    python benchmarks/stream.py --memory [--memory-rows 100000 2000000]

Film review sentences, over and over under ids of their own, are written with teacher vectors by the writer that harvest
uses. Then both give batches of 32 rows of the same Parquet files, shuffled, with the same tokenizer's ids, padded to
the longest text of a batch, with vectors and labels as tensors:

    ours      distill's source and its prefetching thread, as its training loop uses them; opening the folder included;
              half of its buffer holds 16,384 vectors without texts
    datasets  load_dataset("parquet", streaming=True) of the three columns alone, shuffled within a buffer of as many
              rows, the fast tokenizer in batches of 1,024 texts, a DataLoader with a padding collator; its numpy
              format is slower

Each pass is made by a fresh process, in turn, and its seconds start when all is imported and the tokenizer is loaded.
`--memory` measures instead the peak of a fresh process that makes a pass of ours over short texts with vectors of 16
numbers. Prints one JSON line, and fails below 3 times, or where 20 times the rows take over 10 % more memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from shared.console import say, track

BATCH = 32
BUFFER_ROWS = 16384  # of datasets'
LENGTH = 128
WRITTEN_ROWS = 4096
SHARD_ROWS = 65536
RATIO_LIMIT, MEMORY_LIMIT = 3.0, 1.10
MEMORY_WIDTH = 16
SHORT_TEXTS = ("a film", "so dull", "great scenes and a fine plot", "good", "bad actors, bad plot")


def write_shards(out: Path, rows: int, width: int, texts: list[str]) -> None:
    """A shard folder as harvest leaves one."""
    from shared.example import Example
    from shared.schema import Answer, Row, Status
    from shared.shards.folder import TeacherFolder
    from shared.shards.manifest import Manifest

    rng = np.random.default_rng(0)
    manifest = Manifest("reviews", "noise", "classification", ("a", "b"), "accuracy", {"teacher": "noise"}, "benchmark")
    supply = cycle(texts)
    with TeacherFolder.open(out, manifest) as folder, track(f"writing {rows:,} rows", rows) as tracker:
        for start in range(0, rows, WRITTEN_ROWS):
            count = min(WRITTEN_ROWS, rows - start)
            vectors = rng.normal(size=(count, width)).astype(np.float16)
            folder.append(
                "train",
                [
                    Row(
                        Example(str(start + i), next(supply), label=i % 2),
                        sha256(b"%d" % (start + i)).hexdigest(),
                        0,
                        Answer(Status.OK, embedding=vectors[i], attempts=1),
                    )
                    for i in range(count)
                ],
            )
            if (start + count) % SHARD_ROWS == 0:
                folder.seal("train")
            tracker.advance(count)
        folder.seal("train")


def stream_ours(folder: Path, width: int) -> tuple[int, float]:
    """Rows and seconds of a pass of distill's."""
    from distill.compute.devices import choose_device
    from distill.data.batches import BatchPart, RowSource, count_batches
    from distill.data.columns import TEXT, VECTORS, BatchColumn, label_columns
    from distill.data.split import read_split
    from distill.data.tokens import TextColumn, TextEncoder
    from distill.data.vectors import find_vectors
    from distill.models.pretrained import load_tokenizer
    from distill.training.feed import load_batches
    from shared.shards.manifest import choose_teacher, load_manifest
    from shared.sources import MINILM, resolve_model

    encoder = TextEncoder(load_tokenizer(resolve_model(MINILM)), LENGTH)
    device = choose_device("cpu", "float32")
    started = time.perf_counter()
    teacher = choose_teacher(folder)
    manifest = load_manifest(teacher)
    split = read_split(teacher, manifest, "train")
    vectors = find_vectors(split)
    columns: dict[str, BatchColumn] = {
        TEXT: TextColumn(encoder),
        VECTORS: vectors,
        **label_columns(split, visible=split.labelled),
    }
    source = RowSource(split, columns, wanted=split.answered, buffer_bytes=4 * width * BUFFER_ROWS)
    rows = 0
    steps = count_batches(source, BATCH)
    for batch in load_batches([BatchPart(source, BATCH, once=True)], steps, 0, 1, device):
        assert batch.tensor(VECTORS).shape == (len(batch), width)
        assert len(batch.inputs()["input_ids"]) == len(batch)
        rows += len(batch)
    return rows, time.perf_counter() - started


def stream_datasets(folder: Path, width: int) -> tuple[int, float]:
    """Rows and seconds of a pass of datasets'."""
    import torch
    from datasets import disable_progress_bars, load_dataset
    from torch.utils.data import DataLoader

    from distill.models.pretrained import load_tokenizer
    from shared.sources import MINILM, resolve_model

    disable_progress_bars()
    tokenizer = load_tokenizer(resolve_model(MINILM))
    files = sorted(str(path) for path in folder.glob("teacher=noise/split=train/*.parquet"))

    def tokenize(batch: dict[str, list[Any]]) -> Any:
        return tokenizer(batch["text"], truncation=True, max_length=LENGTH)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        names = ("input_ids", "token_type_ids", "attention_mask")
        padded = tokenizer.pad([{name: row[name] for name in names} for row in rows], return_tensors="pt")
        vectors = torch.from_numpy(np.stack([np.asarray(row["embedding"], np.float32) for row in rows]))
        return {**padded, "vectors": vectors, "labels": torch.tensor([row["label"] for row in rows])}

    started = time.perf_counter()
    dataset = load_dataset(
        "parquet", data_files=files, split="train", streaming=True, columns=["text", "label", "embedding"]
    )
    dataset = dataset.shuffle(seed=0, buffer_size=BUFFER_ROWS)
    dataset = dataset.map(tokenize, batched=True, batch_size=1024, remove_columns=["text"])
    rows = 0
    for batch in DataLoader(dataset, batch_size=BATCH, collate_fn=collate):
        assert batch["vectors"].shape == (len(batch["labels"]), width)
        assert len(batch["input_ids"]) == len(batch["labels"])
        rows += len(batch["labels"])
    return rows, time.perf_counter() - started


STREAMS = {"ours": stream_ours, "datasets": stream_datasets}


def measure(who: str, folder: Path, width: int) -> dict[str, Any]:
    """Let a fresh process make a pass: rows, seconds, and its peak memory in bytes."""
    command = [sys.executable, __file__, "--pass", who, str(folder), str(width)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    say(f"{who}: {result['rows']:,} rows in {result['seconds']:.1f} s, peak {result['peak_bytes'] / 2**20:.0f} MiB")
    return result


def make_pass(who: str, folder: str, width: str) -> None:
    """What the fresh process does."""
    rows, seconds = STREAMS[who](Path(folder), int(width))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "peak_bytes": peak}))


def compare_speed(folder: Path, rows: int, width: int, rounds: int) -> tuple[dict[str, Any], str | None]:
    """Rows a second of both, and what falls short."""
    from shared.tasks import find_task, load_task

    task = load_task(find_task("rotten_tomatoes"))
    write_shards(folder, rows, width, [example.text for example in islice(task.examples("train"), rows)])
    passes: dict[str, list[float]] = {who: [] for who in STREAMS}
    for _ in range(rounds):
        for who, rates in passes.items():
            made = measure(who, folder, width)
            if made["rows"] != rows:
                sys.exit(f"{who} gave {made['rows']} of {rows} rows")
            rates.append(made["rows"] / made["seconds"])
    ratio = median(a / b for a, b in zip(passes["ours"], passes["datasets"], strict=True))
    rates_now = {who: round(median(rates)) for who, rates in passes.items()}
    result = {"rows": rows, "width": width, "batch_size": BATCH, "rows_per_second": rates_now, "ratio": round(ratio, 2)}
    missed = f"{ratio:.2f} times as fast as datasets, where {RATIO_LIMIT} was wanted"
    return result, missed if ratio < RATIO_LIMIT else None


def compare_memory(folder: Path, counts: Sequence[int]) -> tuple[dict[str, Any], str | None]:
    """Peak memory of a pass over fewer and over more rows, and what is too much."""
    peaks = []
    for rows in counts:
        write_shards(folder / str(rows), rows, MEMORY_WIDTH, list(SHORT_TEXTS))
        peaks.append(measure("ours", folder / str(rows), MEMORY_WIDTH)["peak_bytes"])
    ratio = peaks[-1] / peaks[0]
    result = {"peak_bytes": dict(zip(map(str, counts), peaks, strict=True)), "memory_ratio": round(ratio, 3)}
    missed = f"memory grows {ratio:.3f} times, where {MEMORY_LIMIT} was allowed"
    return result, missed if ratio > MEMORY_LIMIT else None


def main() -> None:
    if sys.argv[1:2] == ["--pass"]:
        make_pass(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=24576)
    parser.add_argument("--width", type=int, default=768, help="of the teacher's vectors")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure memory instead: minutes")
    parser.add_argument("--memory-rows", type=int, nargs=2, default=(100_000, 2_000_000))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.memory:
            result, failure = compare_memory(Path(temporary), arguments.memory_rows)
        else:
            result, failure = compare_speed(Path(temporary), arguments.rows, arguments.width, arguments.rounds)
    print(json.dumps({"benchmark": "stream", **result}))
    if failure:
        sys.exit(failure)


if __name__ == "__main__":
    main()
