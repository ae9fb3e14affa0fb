"""The real reader over the real corpus, killed with SIGKILL at random moments and started again."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from shared.shards import verify_shards
from shared.sources import MINILM

KILLS = 20
ROWS = 1000
COMMAND = [
    *(sys.executable, "-m", "harvest.cli", "run", "--teacher", "reader", "--encoder", MINILM),
    *("--task", "rotten_tomatoes", "--split", "train", "--limit", str(ROWS), "--json"),
]


@pytest.mark.real
def test_a_killed_harvest_ends_with_exactly_the_planned_rows(tmp_path: Path) -> None:
    command = [*COMMAND, "--out", str(tmp_path / "data")]
    moments = random.Random(11)
    kept_when_killed = []
    start_up = 0.0
    for kill in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started = time.monotonic()
        if kill % 2 == 0:  # while rows are being answered, committed or sealed
            _wait_for_rows(process)
            start_up = time.monotonic() - started
            time.sleep(moments.uniform(0.0, 6.0))
        else:  # while it starts, recovers or answers its first rows
            time.sleep(moments.uniform(0.1, 1.0) * start_up)
        process.kill()
        process.communicate()
        kept_when_killed.append(_count_rows(tmp_path / "data"))

    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["rows"], report["kept"] + report["asked"] + report["to_copy"]) == (ROWS, ROWS)
    rows = pl.read_parquet(tmp_path / "data/teacher=reader/split=train/*.parquet")
    assert rows.height == ROWS
    assert rows["sample_id"].n_unique() == ROWS
    assert set(rows["status"]) == {"ok"}
    assert verify_shards(tmp_path / "data").problems == ()
    assert max(kept_when_killed) > 0, "no kill came after a row was kept: the moments were too early"
    assert kept_when_killed == sorted(kept_when_killed), "a kill lost rows that had been kept"
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["asked"] == 0


def _wait_for_rows(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("reader on"):
            return


def _count_rows(folder: Path) -> int:
    """Rows that are kept, sealed or not, as `harvest status` counts them."""
    status = subprocess.run(
        [sys.executable, "-m", "harvest.cli", "status", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(json.loads(status.stdout)["kept"]) if status.returncode == 0 else 0
