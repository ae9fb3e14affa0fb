"""Seconds that `harvest plan` takes where nearly all is kept, against a bare scan of the same shards.

    python benchmarks/plan.py [--rows 400000] [--kept 390000] [--rounds 5] [--folder DIR]

Builds a task of two texts a row and the folder of an endpoint's answers with the shard writer that `harvest run` uses.
Then, in turn, each in a fresh process: `harvest plan`, and polars reading the columns sample_id and request_key of all
shards. Medians count; a bare start of Python with polars is given too. Prints one JSON line. With --folder the folder
is kept, and used again when it is there.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import orjson
import polars as pl

from harvest.asking.commit import SHARD_BYTES
from harvest.asking.manifest import make_manifest
from harvest.asking.plan import request_key
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.teachers.registry import prepare_teacher
from shared.console import track
from shared.keys import RequestKeys
from shared.schema import Answer, Row, Status
from shared.shards import TeacherFolder
from shared.tasks import find_task, load_task

LABELS = ("contradiction", "entailment", "neutral")
QUESTION = f"Does the first text imply the second? Answer {', '.join(LABELS)}."
WORDS = (__doc__ or "").split()
LATENCY_MS = 100.0
TEACHER = {
    "endpoint": "http://localhost:9/v1",  # never asked
    "model": "m",
    "dialect": "openai",
    "scoring": "top_logprobs",
    "price_in": 0.15,
    "price_out": 0.6,
}
COMMAND = [
    *("--teacher", "endpoint", "--task", "pairs.parquet", "--text-column", "premise"),
    *("--text-pair-column", "hypothesis", "--label-column", "label", "--question", QUESTION, "--json"),
    *(part for name, value in TEACHER.items() for part in (f"--{name.replace('_', '-')}", str(value))),
]
SCAN = """
import polars as pl
pl.scan_parquet("data/pairs/teacher=m/**/*.parquet").select("sample_id", "request_key").collect()
"""


def build(folder: Path, rows: int, kept: int) -> None:
    """The task's file, and the shards of its first `kept` rows."""
    source = random.Random(0)

    def write(words: int) -> str:
        return " ".join(source.choices(WORDS, k=source.randint(words // 2, 2 * words)))

    path = folder / "pairs.parquet"
    pl.DataFrame(
        {
            "premise": [f"{write(20)} {i}" for i in range(rows)],
            "hypothesis": [write(10) for _ in range(rows)],
            "label": [LABELS[i % 3] for i in range(rows)],
        }
    ).write_parquet(path)
    task = TaskChoice(
        str(path), text_column="premise", text_pair_column="hypothesis", label_column="label", question=QUESTION
    )
    config = HarvestConfig(task, TeacherChoice("endpoint", options=TEACHER))
    loaded = load_task(
        find_task(
            task.task,
            text_column=task.text_column,
            text_pair_column=task.text_pair_column,
            label_column=task.label_column,
            question=task.question,
        )
    )
    teacher = prepare_teacher(config.teacher)(loaded.task)
    keys = RequestKeys(teacher.recipe())
    manifest = replace(make_manifest(loaded, teacher), planned=loaded.splits)
    left = kept
    with (
        TeacherFolder.open(folder / "data" / "pairs", manifest) as shards,
        track("building the shards", kept) as tracker,
    ):
        for split in loaded.splits:
            examples = loaded.examples(split)
            while some := list(islice(examples, min(left, 4096))):
                left -= len(some)
                shards.append(split, [Row(e, request_key(keys, teacher, e)[0], 0, make_answer(source)) for e in some])
                tracker.advance(len(some))
                if shards.unsealed_bytes(split) >= SHARD_BYTES:
                    shards.seal(split)
        shards.seal()


def make_answer(source: random.Random) -> Answer:
    """An answer with its raw reply of 20 log-probabilities."""
    logprobs = sorted((-source.expovariate(0.2) for _ in range(20)), reverse=True)
    tokens = [{"token": f"token {i}", "logprob": value, "bytes": [1, 2, 3]} for i, value in enumerate(logprobs)]
    reply = source.choice(LABELS)
    message = {"role": "assistant", "content": reply}
    raw = {
        "choices": [{"message": message, "logprobs": {"content": [{**tokens[0], "top_logprobs": tokens}]}}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 2},
    }
    return Answer(
        Status.OK,
        reply=reply,
        finish_reason="stop",
        label_logprobs=logprobs[:3],
        residual_mass=0.01,
        raw=orjson.dumps(raw),
        prompt_tokens=source.randint(40, 80),
        completion_tokens=2,
        cost_usd=1e-5,
        latency_ms=LATENCY_MS,
        asked_at=datetime.now(UTC),
        attempts=1,
    )


def measure(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of one run of `command` in a fresh process, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--kept", type=int, default=390_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "data").exists():
            folder.mkdir(parents=True, exist_ok=True)
            build(folder, options.rows, options.kept)
        commands = {
            "plan": [sys.executable, "-m", "harvest.cli", "plan", *COMMAND],
            "scan": [sys.executable, "-c", SCAN],
            "start": [sys.executable, "-c", "import polars"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                took, printed = measure(command, folder)
                seconds[name].append(took)
                if name == "plan":
                    report = json.loads(printed)
    assert (report["rows"], report["kept"]) == (options.rows, options.kept), report
    assert report["to_ask"] == options.rows - options.kept, report
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "benchmark": "plan",
                "rows": options.rows,
                "kept": options.kept,
                "seconds": {name: round(value, 2) for name, value in median.items()},
                "slowest": round(max(seconds["plan"]), 2),
                "plan/scan": round(median["plan"] / median["scan"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
