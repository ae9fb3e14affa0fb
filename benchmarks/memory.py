"""Peak memory of a training run over wide vectors and many labels, against a limit.

    python benchmarks/memory.py [--gigabytes .25] [--width 262144] [--element float16] [--preset armada]
                                [--buffer-bytes 256MB] [--limit 4GB] [--folder DIR]
    python benchmarks/memory.py --table [--gigabytes .25]

Shards are written by the writer that harvest uses: short texts with vectors of normal numbers, which hardly compress,
so that --gigabytes are both those of the vectors and, about, those on the disk. The first 128 rows have labels, the
others none. Then the command line trains a tiny BERT of random weights for one epoch, in a process of its own with one
thread, and the peak of that process's resident memory is what the kernel says. `--preset` is that of distill run:
default learns from a head on the vectors, armada and armada-code have an aligner, which alone takes 3 GiB at 262,144
numbers: 768 weights a number, each with its gradient and AdamW's two moments. Fails where the peak is over the limit.

`--table` does the same for vectors of 768, 4,096 and 262,144 numbers with each preset (armada-code up to 4,096: its map
is square), and for label distributions over 3 and over 150 labels, which a student learns from without an aligner. The
time of a step is that of the epoch by the student's steps, the aligner's and reading
included. Prints one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill.models.aligner import MAX_SQUARE_WIDTH
from distill.presets import PRESETS
from shared.console import say, track
from shared.example import Example
from shared.options import parse_bytes
from shared.schema import Answer, Row, Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest

WIDTHS: tuple[int, ...] = (768, 4096, 262_144)
LABEL_COUNTS: tuple[int, ...] = (3, 150)
WORDS = ("film", "plot", "actor", "scene", "music", "dull", "fine", "good", "bad")
SHARD_BYTES, APPENDED_BYTES = 1_000_000_000, 32 << 20
LABELLED, DEV_ROWS = 128, 64
JUDGED_ROWS = 100_000  # with label distributions
OPTIONS = ("--device", "cpu", "--precision", "float32", "--epochs", "1", "--batch-size", "32", "--max-length", "16")
JUDGED = ("--loss", "none", "--soft", "kl", "--alpha", "0.5", "--gamma", "0")


def make_row(number: int, split: str, classes: int, labelled: bool, **answer: Any) -> Row:
    """A row of a few words, of which one is its label's."""
    label = number % classes
    text = f"{WORDS[number % 5]} {WORDS[number // 5 % 9]} w{label}"
    example = Example(f"{split}-{number}", text, label=label if labelled else None)
    status = Status.OK if answer else Status.UNASKED
    return Row(example, sha256(example.sample_id.encode()).hexdigest(), 0, Answer(status, attempts=1, **answer))


def make_wide_rows(count: int, width: int, element: str) -> Iterator[Row]:
    """Rows with vectors, of floats of the type `element`: slices of noise, about a mean that the label says."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(width + (1 << 24), dtype=np.float32)
    by_label = [(noise + shift).astype(element) for shift in (-0.25, 0.25)]
    for number, first in enumerate(rng.integers(1 << 24, size=count).tolist()):
        yield make_row(number, "train", 2, number < LABELLED, embedding=by_label[number % 2][first : first + width])


def make_judged_rows(count: int, classes: int) -> Iterator[Row]:
    """Rows with label distributions that favour the label."""
    rng = np.random.default_rng(0)
    for number in range(count):
        scores = rng.normal(size=classes)
        scores[number % classes] += 4
        logs = scores - np.log(np.exp(scores).sum())
        yield make_row(number, "train", classes, True, label_logprobs=logs.tolist(), residual_mass=0.0)


def write_shards(out: Path, rows: Iterator[Row], count: int, row_bytes: int, classes: int, element: str) -> int:
    """Write a shard folder as harvest leaves one; give the bytes of its shards."""
    labels = tuple(f"label {index}" for index in range(classes))
    manifest = Manifest("made-up", "t", "classification", labels, "accuracy", {"teacher": "t"}, "benchmark")
    taken = max(1, min(4096, APPENDED_BYTES // row_bytes))
    waiting = 0
    kind = pa.float32() if element == "float32" else pa.float16()
    with TeacherFolder.open(out, manifest, vector_type=kind) as folder, track("writing shards", count) as tracker:
        folder.append("validation", [make_row(i, "validation", classes, True) for i in range(DEV_ROWS)])
        for first in range(0, count, taken):
            some = [next(rows) for _ in range(min(taken, count - first))]
            folder.append("train", some)
            tracker.advance(len(some))
            waiting += len(some) * row_bytes
            if waiting >= SHARD_BYTES:
                folder.seal("train")
                waiting = 0
        folder.seal()
        return sum(shard.bytes for shard in folder.manifest.shards)


def write_student(folder: Path, classes: int) -> None:
    """A BERT of 2 layers x 32 with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = [*special.values(), *WORDS, *(f"w{label}" for label in range(classes))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, model_max_length=16)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)


def train(folder: Path, name: str, buffer_bytes: str, options: Sequence[str]) -> dict[str, Any]:
    """Train in a fresh process: its peak in bytes, its seconds, and those of a step."""
    command = [sys.executable, "-m", "distill.cli", "run", "--shards", str(folder / "data"), "--student"]
    command += [str(folder / "student"), "--out", str(folder / "runs"), "--name", name, "--buffer-bytes", buffer_bytes]
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, "1"), "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    process = subprocess.Popen([*command, *OPTIONS, *options], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name}: distill run ended with {process.returncode}")
    epoch = json.loads((folder / "runs" / name / "log.jsonl").read_text().splitlines()[0])
    return {
        "peak_bytes": usage.ru_maxrss * 1024,
        "seconds": round(time.perf_counter() - started, 1),
        "steps": epoch["student_steps"],
        "step_ms": round(1000 * epoch["seconds"] / epoch["student_steps"], 1),
    }


def measure_width(arguments: argparse.Namespace, width: int, preset: str) -> dict[str, Any]:
    """What a run over vectors of a width takes."""
    row_bytes = width * np.dtype(arguments.element).itemsize
    count = max(LABELLED + 32, int(arguments.gigabytes * 1e9 / row_bytes))
    rows = make_wide_rows(count, width, arguments.element)
    return measure(arguments, f"width-{width}-{preset}", rows, count, row_bytes, 2, ("--preset", preset))


def measure_labels(arguments: argparse.Namespace, classes: int) -> dict[str, Any]:
    """What a run over distributions of so many labels takes."""
    rows = make_judged_rows(JUDGED_ROWS, classes)
    return measure(arguments, f"labels-{classes}", rows, JUDGED_ROWS, 4 * classes, classes, JUDGED)


def measure(
    arguments: argparse.Namespace,
    name: str,
    rows: Iterator[Row],
    count: int,
    row_bytes: int,
    classes: int,
    options: Sequence[str],
) -> dict[str, Any]:
    """Write a shard folder and a student, train, and say what that took."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        stored = write_shards(folder / "data", rows, count, row_bytes, classes, arguments.element)
        write_student(folder / "student", classes)
        result = {"rows": count, "shard_bytes": stored, **train(folder, name, arguments.buffer_bytes, options)}
    say(
        f"{name}: {count:,} rows, {stored / 1e9:.2f} GB of shards, peak {result['peak_bytes'] / 1e9:.2f} GB, "
        f"{result['step_ms']} ms a step, {result['seconds']} s"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.25, help="of vectors")
    parser.add_argument("--width", type=int, default=262_144)
    parser.add_argument("--element", choices=("float16", "float32"), default="float16", help="of the vectors")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="armada", help="of distill run")
    parser.add_argument("--buffer-bytes", default="256MB", help="of distill run")
    parser.add_argument("--limit", default="4GB")
    parser.add_argument("--folder", type=Path, help="where the shards are written; a temporary folder unless given")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    runs = [
        (width, preset)
        for width in WIDTHS
        for preset in PRESETS
        if preset != "armada-code" or width <= MAX_SQUARE_WIDTH
    ]
    if not arguments.table:
        runs = [(arguments.width, arguments.preset)]
    results = {f"width {width}, {preset}": measure_width(arguments, width, preset) for width, preset in runs}
    if arguments.table:
        results |= {f"labels {classes}": measure_labels(arguments, classes) for classes in LABEL_COUNTS}
    print(json.dumps({"benchmark": "memory", "buffer_bytes": arguments.buffer_bytes, "results": results}))
    limit = parse_bytes(arguments.limit)
    if over := [name for name, each in results.items() if each["peak_bytes"] > limit]:
        sys.exit(f"over {arguments.limit} of memory: {', '.join(over)}")


if __name__ == "__main__":
    main()
