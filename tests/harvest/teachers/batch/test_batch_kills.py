"""Harvests by jobs under all faults, killed at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harvest.looking.status import read_status
from shared.shards import verify_shards
from shared.shards.manifest import MANIFEST_NAME
from tests.harvest.batch_server import FOREIGN, BatchServer
from tests.harvest.teachers.endpoint.test_crash import write_texts

PRICE_IN, PRICE_OUT = 1.0, 2.0
HALF = (40 * PRICE_IN + PRICE_OUT) / 1e6 / 2
LONGEST_LIFE_SECONDS = 10.0
# Forks a run for each line that it reads, so that a kill costs no start of an interpreter. Prints its id and its end.
FORKER = """
import os, sys
from pathlib import Path
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import run_harvest
import harvest.teachers.batch.teacher

url, texts, out = sys.argv[1:]
words = ("negative", "positive")
task = TaskChoice(texts, text_column="text", label_column="label", labels=words, label_words=words)
options = {
    "endpoint": url, "model": "fault", "dialect": "openai", "scoring": "top_logprobs", "batch": True, "jobs": 4,
    "job_rows": 500, "poll": 0.05, "attempts": 50, "price_in": 1.0, "price_out": 2.0,
}
for _ in sys.stdin:
    child = os.fork()
    if not child:
        try:
            teacher = TeacherChoice("endpoint", options=options)
            run_harvest(HarvestConfig(task, teacher, out=Path(out), failure_limit=1.0))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def wait_for_calls(server: BatchServer, calls: int) -> None:
    """Wait until the server has had so many more calls, or for as long as a run may live."""
    wanted, end = sum(server.count.calls.values()) + calls, time.monotonic() + LONGEST_LIFE_SECONDS
    while sum(server.count.calls.values()) < wanted and time.monotonic() < end:
        time.sleep(0.002)


def harvest_with_kills(tmp_path: Path, rows: int, kills: int, seed: int) -> None:
    """A harvest of `rows` in jobs under all faults, killed at `kills` random moments and started again each time.

    Every row ends with a status, nothing is submitted twice, and all that was billed is in the rows, for half.
    """
    moments = random.Random(seed)
    texts, out = write_texts(tmp_path, rows), tmp_path / "out"
    command = [sys.executable, "-c", FORKER]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        BatchServer("openai", faults=True, seed=seed) as server,
        (tmp_path / "log").open("w") as log,
        subprocess.Popen([*command, server.url, str(texts), str(out)], stderr=log, **pipes) as forker,
    ):
        assert forker.stdin is not None
        assert forker.stdout is not None
        kept = 0
        for life in range(kills + 1):
            forker.stdin.write("run\n")
            forker.stdin.flush()
            child = int(forker.stdout.readline())
            if life == kills:
                break
            if moments.random() < 0.4:  # while it starts, and takes up what there is
                time.sleep(moments.uniform(0.0, 0.5))
            else:
                wait_for_calls(server, moments.randrange(12))
            time.sleep(moments.uniform(0.0, 0.05))
            os.kill(child, signal.SIGKILL)
            assert int(forker.stdout.readline()) == -signal.SIGKILL
            if not life % 10 and (out / "teacher=fault" / MANIFEST_NAME).exists():
                (status,) = read_status(out)["teachers"]
                assert kept <= status["kept"], "a kill lost rows that had been kept"
                assert status["in_flight"] == 0
                kept = status["kept"]
        assert int(forker.stdout.readline()) == 0, (tmp_path / "log").read_text()[-3000:]
    assert not server.count.doubled
    shards = pl.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True)
    assert shards.height == rows
    assert shards.select("split", "sample_id").is_duplicated().sum() == 0
    assert set(shards["status"]) == {"ok", "failed", "refused"}
    replies = sum(runs for custom_id, runs in server.count.replies.items() if FOREIGN not in custom_id)
    assert shards["cost_usd"].sum() == pytest.approx(replies * HALF)
    assert replies == (shards["status"] == "ok").sum()
    verification = verify_shards(out)
    assert verification.ok, verification.problems
    assert not read_status(out)["teachers"][0]["jobs"]


@pytest.mark.real
def test_killed_runs_lose_no_job_and_submit_none_twice(tmp_path: Path) -> None:
    harvest_with_kills(tmp_path, rows=3000, kills=12, seed=8)
