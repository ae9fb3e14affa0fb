"""Training from an object store against training from this disk: seconds, requests and bytes.

    python benchmarks/object_store.py [--rows 4000] [--delay 0.02] [--rounds 3] [--student MODEL]

Film review sentences with teacher vectors and raw replies are written by the writer that harvest uses, to a folder, and
copied to moto's S3 server on loopback, which waits `--delay` seconds before each answer. Then `distill run` trains one
epoch of a student, MiniLM unless given, from each in turn: each time as a process of its own, from the store with an
empty cache. The seconds are those of the whole command. Prints one JSON line, and fails above 1.15 times, or where more
is read than the columns that a student needs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from shared.console import say
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards import Manifest, TeacherFolder
from shared.sources import MINILM
from shared.tasks import find_task, load_task
from tests.shared.shards.shard_rows import make_key
from tests.shared.store_server import StoreServer, serve_store

RATIO_LIMIT = 1.15
WIDTH = 384
RAW_BYTES = 1500
SHARD_ROWS = 2048
HELD_OUT = 400


def write_folder(out: Path, rows: int) -> Path:
    """Write a teacher's folder; of each row's bytes most are its raw reply, which no student reads."""
    task = load_task(find_task("rotten_tomatoes"))
    examples = cycle(islice(task.examples("train"), rows))
    rng = np.random.default_rng(0)
    manifest = Manifest("reviews", "noise", "classification", ("a", "b"), "accuracy", {"teacher": "noise"}, "benchmark")
    with TeacherFolder.open(out, manifest) as folder:
        for split, count in (("train", rows), ("validation", HELD_OUT), ("test", HELD_OUT)):
            for first in range(0, count, SHARD_ROWS):
                numbers = range(first, min(count, first + SHARD_ROWS))
                folder.append(split, [make_row(next(examples), number, rng) for number in numbers])
                folder.seal(split)
    return folder.path


def make_row(example: Example, number: int, rng: np.random.Generator) -> Row:
    """A row with a vector of its own, and a raw reply that no compression makes smaller."""
    vector = rng.normal(size=WIDTH).astype(np.float16)
    answer = Answer(Status.OK, embedding=vector, raw=rng.bytes(RAW_BYTES), attempts=1)
    return Row(Example(str(number), example.text, label=number % 2), make_key(number), 0, answer)


def train(shards: str, work: Path, student: str, environment: dict[str, str]) -> float:
    """Train in a process of its own; give the seconds of the whole command."""
    command = [sys.executable, "-m", "distill.cli", "run", "--shards", shards, "--epochs", "1", "--quiet"]
    command += ["--student", student, "--name", "timed", "--out", str(work), "--overwrite"]
    started = time.perf_counter()
    subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(server: StoreServer, folder: Path, work: Path, options: argparse.Namespace) -> dict[str, object]:
    """Train from both, in turn."""
    seconds: dict[str, list[float]] = {"disk": [], "store": []}
    requests, sent = [], []
    for number in range(options.rounds):
        seconds["disk"].append(train(str(folder.parent), work, options.student, {}))
        server.delay, before = options.delay, len(server.seen)
        cache = {"XDG_CACHE_HOME": str(work / f"cache-{number}")}
        seconds["store"].append(train("s3://bucket/data/reviews", work, options.student, server.environment | cache))
        requests.append(len(server.seen) - before)
        sent.append(sum(seen.sent for seen in server.seen[before:]))
        say(f"disk {seconds['disk'][-1]:.1f} s, store {seconds['store'][-1]:.1f} s")
    ratio = median(there / here for here, there in zip(seconds["disk"], seconds["store"], strict=True))
    return {
        "seconds": {name: round(median(each), 1) for name, each in seconds.items()},
        "ratio": round(ratio, 3),
        "requests": max(requests),
        "read_bytes": max(sent),
        "folder_bytes": sum(path.stat().st_size for path in folder.rglob("*.parquet")),
    }


def main() -> None:
    """Measure, print, and fail where it is too slow or reads too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--student", default=MINILM)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, serve_store() as server:
        folder = write_folder(Path(place) / "data" / "reviews", options.rows)
        server.upload(folder.parent, "data/reviews")
        found = measure(server, folder, Path(place) / "runs", options)
    print(json.dumps({"rows": options.rows, "delay": options.delay, **found}))
    needed = int(str(found["folder_bytes"])) - RAW_BYTES * options.rows
    if float(str(found["ratio"])) > RATIO_LIMIT or int(str(found["read_bytes"])) > needed:
        sys.exit(f"{found['ratio']} times as long, {found['read_bytes']} bytes; {RATIO_LIMIT} and {needed} are allowed")


if __name__ == "__main__":
    main()
