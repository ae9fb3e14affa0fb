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

from harvest.asking.inflight import read_in_flight
from harvest.looking.status import read_status
from shared.shards import load_manifest, read_kept, verify_shards
from tests.harvest.fault_server import ALL_FAULTS, FaultServer
from tests.harvest.teachers.endpoint.endpoint_runs import CANARY, check_no_file_shows

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
    """A harvest of `rows` under all faults, killed at `kills` random moments and started again until it is done.

    What the server answered 200 and was asked again must have been in flight at a kill, and `harvest status` must have
    said so, with the right number, before the next run began.
    """
    moments = random.Random(seed)
    texts, out = write_texts(tmp_path, rows), tmp_path / "out"
    folder = out / "teacher=m"
    maybe_billed_twice: set[str] = set()
    said = []
    kept = 0
    with FaultServer(ALL_FAULTS, seed, latency=0.1) as server:
        # Random in the work that is done, so that they are spread over the run however fast the machine is. Where two
        # lie close together the second one comes while the run starts and mends its folder.
        for moment in sorted(moments.sample(range(1, rows - 400), kills)):
            child = start(server, texts, out)
            while child.poll() is None and len(server.count.attempts) < moment:
                time.sleep(0.005)
            time.sleep(moments.uniform(0.0, 0.3))
            child.send_signal(signal.SIGKILL)
            said.append(child.communicate()[0])
            assert child.returncode == -signal.SIGKILL, said[-1]
            if not folder.exists():
                continue
            unanswered = find_unanswered(folder)
            (status,) = read_status(out)["teachers"]
            assert status["in_flight"] == len(unanswered)
            assert kept <= status["kept"], "a kill lost rows that had been kept"
            kept = status["kept"]
            maybe_billed_twice |= unanswered
        child = start(server, texts, out)
        said.append(child.communicate()[0])
        assert child.returncode == 0, said[-1]
        count = server.count
    assert set(count.again) <= maybe_billed_twice
    assert kept > 0
    shards = pl.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True)
    assert shards.height == rows
    assert shards.select("split", "sample_id").is_duplicated().sum() == 0
    assert set(shards["request_key"]) == set(count.attempts)
    assert set(shards["status"]) == {"ok", "unparsable", "refused", "failed"}
    verification = verify_shards(out)
    assert verification.ok, verification.problems
    assert not find_unanswered(folder)
    assert CANARY not in "".join(said)
    check_no_file_shows(CANARY, out)


@pytest.mark.real
def test_killed_runs_resume_without_asking_again(tmp_path: Path) -> None:
    harvest_with_kills(tmp_path, rows=1000, kills=3, seed=6)


@pytest.mark.real
def test_fifty_kills_in_twenty_thousand_requests(tmp_path: Path) -> None:
    harvest_with_kills(tmp_path, rows=20_000, kills=50, seed=6)
