"""Seconds and memory of what looks at every row and asks nobody: a plan, a run that finds all kept, a training's start.

    python benchmarks/plan.py [--rows 400000 --rows 10000000] [--rounds 1] [--only plan] [--folder DIR]

For each number of rows it makes a Parquet file of two texts a row, one of its first nine tenths, and the folder of an
endpoint's answers to those, with the journal and the seal that `harvest run` uses; replies have the bytes of real ones.
Then, in turn, each in a process of its own:

    plan     `harvest plan`: nine tenths are kept
    new      `harvest plan` into an empty folder: nothing is kept
    resume   `harvest run` on the file of which all rows are kept
    train    `distill run` until its first step: a student of two layers learns from label scores
    scan     polars reading the columns sample_id and request_key of all shards
    start    a bare start of Python with polars

Medians of the rounds count. `core` is seconds of a core, of all threads together: what else the machine does changes it
less than the clock's. `peak_mb` is the most memory that the process has had (ru_maxrss). Prints one JSON line.
With --folder the files are kept, and used again when they are there: about 400 bytes a row.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sized
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from harvest.asking.manifest import make_manifest
from harvest.asking.plan import request_key
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.teachers.base import Teacher
from harvest.teachers.registry import prepare_teacher
from shared.console import Tracker, track
from shared.example import Example
from shared.keys import RequestKeys
from shared.schema import Answer, Row, Status, row_schema, rows_to_batch
from shared.shards import TeacherFolder
from shared.shards.journal import Journal
from shared.tasks import LoadedTask, find_task, load_task, make_examples

LABELS = ("contradiction", "entailment", "neutral")
QUESTION = f"Does the first text imply the second? Answer {', '.join(LABELS)}."
WORDS = (__doc__ or "").split()
LATENCY_MS = 100.0
POOL = 4096  # different texts and answers, of which the rows are made
BLOCK_ROWS = 1 << 16  # of the source that are made at once
SEALED_ROWS = 1 << 18  # of a journal that is sealed
TEACHER = {
    "endpoint": "http://localhost:9/v1",  # never asked
    "model": "m",
    "dialect": "openai",
    "scoring": "top_logprobs",
    "price_in": 0.15,
    "price_out": 0.6,
}
TASK: dict[str, Any] = {
    "text_column": "premise",
    "text_pair_column": "hypothesis",
    "label_column": "label",
    "question": QUESTION,
}
COMMAND = [
    *("--teacher", "endpoint", "--json"),
    *(part for name, value in (TASK | TEACHER).items() for part in (f"--{name.replace('_', '-')}", str(value))),
]
KEPT = ("--out", "data/pairs")
STUDENT = "student"
SCAN = """
import polars as pl
pl.scan_parquet("data/pairs/teacher=m/**/*.parquet").select("sample_id", "request_key").collect()
"""
CASES = {
    "plan": [sys.executable, "-m", "harvest.cli", "plan", "--task", "pairs.parquet", *COMMAND, *KEPT],
    "new": [sys.executable, "-m", "harvest.cli", "plan", "--task", "pairs.parquet", *COMMAND, "--out", "empty"],
    "resume": [sys.executable, "-m", "harvest.cli", "run", "--task", "kept/pairs.parquet", *COMMAND, *KEPT],
    "train": [sys.executable, str(Path(__file__).resolve()), "--train"],
    "scan": [sys.executable, "-c", SCAN],
    "start": [sys.executable, "-c", "import polars"],
}


def build(folder: Path, rows: int) -> None:
    """The task's files, the shards of the shorter one's rows, and a student."""
    source = random.Random(0)
    path = folder / "kept" / "pairs.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_source(folder / "pairs.parquet", rows, random.Random(0))
    write_source(path, rows * 9 // 10, random.Random(0))
    save_student(folder / STUDENT)
    loaded = load_task(find_task(str(path), **TASK))
    config = HarvestConfig(TaskChoice(str(path), **TASK), TeacherChoice("endpoint", options=TEACHER))
    teacher = prepare_teacher(config.teacher)(loaded.task)
    manifest = replace(make_manifest(loaded, teacher), planned=loaded.splits)
    with (
        TeacherFolder.open(folder / "data" / "pairs", manifest) as shards,
        track("building the shards", sum(loaded.splits.values())) as tracker,
    ):
        for split in loaded.splits:
            write_shards(shards, loaded, teacher, split, source, tracker)


def write_source(path: Path, rows: int, source: random.Random) -> None:
    """Write so many rows of two texts and a label, a block at a time: of a longer file, the first ones."""
    phrases = pl.Series([" ".join(source.choices(WORDS, k=source.randint(5, 20))) for _ in range(POOL)])
    random_rows = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, BLOCK_ROWS):
        size = min(BLOCK_ROWS, rows - start)
        picked = [phrases[random_rows.integers(0, POOL, BLOCK_ROWS)].head(size) for _ in range(3)]
        table = pl.DataFrame(
            {
                "premise": picked[0] + " " + picked[1] + " " + pl.Series(range(start, start + size)).cast(pl.String),
                "hypothesis": picked[2],
                "label": pl.Series(LABELS)[random_rows.integers(0, 3, BLOCK_ROWS)].head(size),
            }
        ).to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def write_shards(
    shards: TeacherFolder,
    loaded: LoadedTask,
    teacher: Teacher,
    split: str,
    source: random.Random,
    tracker: Tracker,
) -> None:
    """Answer all rows of a split, and seal them."""
    schema, keys = row_schema(labels=LABELS), RequestKeys(teacher.recipe())
    example = Example("0", "0")
    answers = rows_to_batch([Row(example, "0" * 64, 0, make_answer(source)) for _ in range(POOL)], schema)
    order = np.random.default_rng(0)
    frames: Iterator[pl.DataFrame] = (
        part for _, frame in loaded.frames([split]) for part in frame.iter_slices(BLOCK_ROWS // 8)
    )
    for number in count():
        path = shards.path / "journal" / f"split={split}" / f"bulk{number}.arrows"
        journal, rows = Journal.open(path, schema), 0
        while rows < SEALED_ROWS and (frame := next(frames, None)) is not None:
            found = [request_key(keys, teacher, example)[0] for example in make_examples(frame)]
            taken = answers.take(pa.array(order.integers(0, POOL, frame.height)))
            own: dict[str, Any] = {**{name: frame[name].to_arrow() for name in frame.columns}, "request_key": found}
            columns = [
                pa.array(own[field.name]).cast(field.type) if field.name in own else taken[field.name]
                for field in schema
            ]
            journal.append(pa.record_batch(columns, schema=schema))
            rows += frame.height
            tracker.advance(frame.height)
        journal.close()
        shards.seal(split)
        if rows < SEALED_ROWS:
            return


def make_answer(source: random.Random) -> Answer:
    """An answer with its raw reply of 20 log-probabilities."""
    logprobs = sorted((-source.expovariate(0.2) for _ in range(20)), reverse=True)
    tokens = [{"token": f"token {i}", "logprob": value, "bytes": [1, 2, 3]} for i, value in enumerate(logprobs)]
    reply = source.choice(LABELS)
    weights = [source.random() for _ in LABELS]
    message = {"role": "assistant", "content": reply}
    raw = {
        "choices": [{"message": message, "logprobs": {"content": [{**tokens[0], "top_logprobs": tokens}]}}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 2},
    }
    return Answer(
        Status.OK,
        reply=reply,
        finish_reason="stop",
        label_logprobs=[math.log(0.99 * weight / sum(weights)) for weight in weights],
        residual_mass=0.01,
        raw=orjson.dumps(raw),
        prompt_tokens=source.randint(40, 80),
        completion_tokens=2,
        cost_usd=1e-5,
        latency_ms=LATENCY_MS,
        asked_at=datetime.now(UTC),
        attempts=1,
    )


def save_student(folder: Path) -> None:
    """Save a BERT of two layers, and a tokenizer of the words there are."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = list(dict.fromkeys([*special, *map(str, range(10)), *(f"##{digit}" for digit in range(10)), *WORDS]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False, model_max_length=128).save_pretrained(folder)
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)


def train() -> None:
    """Train until the first step of the student, whose batch is there then."""
    from distill.cli import app
    from distill.methods.students import StudentPhase

    places = ["--shards", KEPT[1], "--student", STUDENT, "--out", "runs", "--overwrite"]  # of an earlier start
    sys.argv = ["distill", "run", *places, "--device", "cpu"]
    with patch.object(StudentPhase, "step", stop):
        app()


def stop(phase: object, batch: Sized, epoch: int, index: int) -> NoReturn:
    """End the process in place of a step."""
    assert len(batch)
    print("{}", flush=True)
    os._exit(0)


class Measured(NamedTuple):
    """One run in a process of its own: seconds on the clock and of a core, and its peak of memory in MB."""

    seconds: float
    core: float
    peak: float


def measure(command: list[str], folder: Path) -> tuple[Measured, str]:
    """Measure one run of `command`; give what it printed, too."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(command, cwd=folder, stdout=printed, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(said.decode())
        printed.seek(0)
        return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), printed.read().decode()


def compare(folder: Path, rows: int, cases: list[str], rounds: int) -> dict[str, Any]:
    """Measure all cases on so many rows."""
    measured: dict[str, list[Measured]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name in cases:
            found, printed = measure(CASES[name], folder)
            measured[name].append(found)
            print(f"{rows:,} rows, {name}: {found}", file=sys.stderr)
            if name in ("plan", "new", "resume"):
                check_report(name, json.loads(printed), rows)
    seconds_of = {name: statistics.median(each.seconds for each in values) for name, values in measured.items()}
    core_of = {name: statistics.median(each.core for each in values) for name, values in measured.items()}
    told: dict[str, Any] = {
        "rows": rows,
        "seconds": {name: round(value, 2) for name, value in seconds_of.items()},
        "core": {name: round(value, 2) for name, value in core_of.items()},
        "core_us_a_row": {name: round(value / rows * 1e6, 2) for name, value in core_of.items()},
        "peak_mb": {name: round(max(each.peak for each in values)) for name, values in measured.items()},
    }
    if {"plan", "scan"} <= seconds_of.keys():
        told["plan/scan"] = round(core_of["plan"] / core_of["scan"], 2)
    return told


def check_report(name: str, report: dict[str, Any], rows: int) -> None:
    """That a command has found what is kept, and nothing else."""
    if name == "resume":
        assert (report["kept"], report["asked"]) == (report["rows"], 0), report
    else:
        assert (report["rows"], report["to_ask"]) == (rows, rows - report["kept"]), report
        assert bool(report["kept"]) == (name == "plan"), report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", action="append", choices=CASES, default=[])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--build", action="store_true", help="only make the files")
    parser.add_argument(
        "--train", action="store_true", help="train here until the first step: what the case train runs"
    )
    options = parser.parse_args()
    if options.train:
        train()
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    told = []
    for rows in options.rows or [400_000]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.folder or Path(temporary)) / str(rows)
            if options.build:
                build(folder, rows)
                continue
            if not (folder / "data").exists():  # in a process of its own: a child's peak counts what its parent had
                made = ["--build", "--rows", str(rows), "--folder", str(folder.parent)]
                subprocess.run([sys.executable, __file__, *made], check=True)
            told.append(compare(folder, rows, options.only or list(CASES), options.rounds))
    if told:
        print(json.dumps({"benchmark": "plan", "sizes": told}))


if __name__ == "__main__":
    main()
