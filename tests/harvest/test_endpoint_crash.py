"""The endpoint teacher in the engine, killed: nothing that was answered and kept is asked again, by any later run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from endpoint_runs import CANARY
from fault_server import ALL_FAULTS, FaultServer

from harvest.inflight import read_in_flight
from harvest.status import read_status
from shared.shards import load_manifest, read_kept, verify_shards

HARVEST = """
import json
from pathlib import Path
import sys
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import run_harvest

url, texts, out, *more = sys.argv[1:]
options = {
    "endpoint": url, "model": "m", "dialect": "openai", "scoring": "top_logprobs", "api_key_env": "CANARY_KEY",
    "concurrency": 64, "read_timeout": 5.0, "body_timeout": 1.0, "price_in": 1.0, "price_out": 1.0,
    **(json.loads(more[0]) if more else {}),
}
task = TaskChoice(
    texts, text_column="text", label_column="label", labels=["negative", "positive"],
    label_words=["negative", "positive"], question="Positive or negative?",
)
report = run_harvest(HarvestConfig(task, TeacherChoice("endpoint", options=options), out=Path(out), failure_limit=1.0))
print(report.rows, report.kept, report.asked)
"""


def write_texts(folder: Path, rows: int) -> Path:
    path = folder / "texts.jsonl"
    with path.open("w") as file:
        for i in range(rows):
            file.write(json.dumps({"text": f"review number {i}", "label": ("negative", "positive")[i % 2]}) + "\n")
    return path


def start(server: FaultServer, texts: Path, out: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HARVEST, server.url, str(texts), str(out)],
        env={**os.environ, "CANARY_KEY": CANARY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def find_unanswered(folder: Path) -> set[str]:
    """The keys that had left when a run was killed and are not kept."""
    manifest = load_manifest(folder)
    kept: set[str] = set()
    for split in manifest.planned:
        kept |= {bytes(key).ljust(32, b"\0").hex() for key in read_kept(folder, manifest, split).request_keys}
    return read_in_flight(folder) - kept


def harvest_with_kills(tmp_path: Path, rows: int, kills: int, seed: int) -> None:
    source = random.Random(seed)
    texts, out = write_texts(tmp_path, rows), tmp_path / "out"
    folder = out / "teacher=endpoint"
    in_flight: set[str] = set()
    said = []
    with FaultServer(ALL_FAULTS, seed, latency=0.02) as server:
        for _ in range(kills):
            child = start(server, texts, out)
            before = len(server.count.attempts)
            while child.poll() is None and len(server.count.attempts) == before:
                time.sleep(0.01)
            time.sleep(source.uniform(0.0, 0.8 * rows / 400 / kills + 0.2))
            child.send_signal(signal.SIGKILL)
            said.append(child.communicate()[0])
            assert child.returncode in (0, -signal.SIGKILL), said[-1]
            unanswered = find_unanswered(folder)
            (status,) = read_status(out)["teachers"]
            assert status["in_flight"] == len(unanswered)
            in_flight |= unanswered
        child = start(server, texts, out)
        said.append(child.communicate()[0])
        assert child.returncode == 0, said[-1]
        count = server.count
    assert set(count.again) <= in_flight
    shards = pl.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True)
    assert shards.height == rows
    assert shards.select("split", "sample_id").is_duplicated().sum() == 0
    assert set(shards["request_key"]) == set(count.attempts)
    verification = verify_shards(out)
    assert verification.ok, verification.problems
    assert not find_unanswered(folder)
    assert CANARY not in "".join(said)
    assert CANARY not in str(shards.select(pl.col(pl.String)).rows())
    assert not any(CANARY.encode() in raw for raw in shards["raw"].drop_nulls())
    assert not any(CANARY.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_killed_runs_resume_without_asking_again(tmp_path: Path) -> None:
    harvest_with_kills(tmp_path, rows=800, kills=3, seed=5)


@pytest.mark.real
def test_fifty_kills_in_twenty_thousand_requests(tmp_path: Path) -> None:
    harvest_with_kills(tmp_path, rows=20_000, kills=50, seed=6)
