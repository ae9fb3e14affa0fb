"""Runs in a process that may open few files: slower, and nothing else."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from shared.descriptors import SHORTAGE
from shared.disk import explain_disk_errors
from shared.errors import DiskError
from tests.harvest.fault_server import FaultServer
from tests.harvest.teachers.endpoint.test_crash import HARVEST, write_texts

LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
import shared.descriptors
shared.descriptors.KEPT_FREE = {kept_free}
import os, sys
os.environ["CANARY_KEY"] = "sk-canary-0123456789"
"""


def run_limited(tmp_path: Path, server: FaultServer, soft: int, hard: int, kept_free: int = 64) -> str:
    """Harvest 600 rows with `--concurrency 256`, in 600 requests; give what was said."""
    script = LIMIT.format(soft=soft, hard=hard, kept_free=kept_free) + HARVEST
    arguments = [
        server.url,
        str(write_texts(tmp_path, 600)),
        str(tmp_path / "out"),
        '{"concurrency": 256, "max_requests": 600}',
    ]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not server.count.again
    assert set(server.count.attempts.values()) == {1}
    rows = pl.read_parquet(f"{tmp_path}/out/**/*.parquet")
    assert dict(rows["status"].value_counts().iter_rows()) == {"ok": 600}
    assert set(rows["attempts"]) == {1}
    return done.stderr


def test_concurrency_is_what_the_descriptors_allow_and_no_row_fails(tmp_path: Path) -> None:
    with FaultServer(latency=0.1) as server:
        said = run_limited(tmp_path, server, 200, 200)
        assert "--concurrency 256 is" in said
        assert 1 < server.count.most_in_flight < 140


@pytest.mark.real
def test_where_descriptors_run_out_all_the_same_it_slows_down(tmp_path: Path) -> None:
    with FaultServer(latency=0.1) as server:
        said = run_limited(tmp_path, server, 120, 120, kept_free=-1000)
        assert "this process can open no more connections" in said
        assert server.count.most_in_flight < 120


@pytest.mark.real
def test_the_limit_is_raised_to_the_hard_one_first(tmp_path: Path) -> None:
    with FaultServer(latency=0.5) as server:
        assert "--concurrency 256 is" not in run_limited(tmp_path, server, 64, 2000)


@pytest.mark.parametrize("number", sorted(SHORTAGE))
def test_a_shortage_is_not_taken_for_a_full_disk(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskError, match="ulimit -n") as raised, explain_disk_errors(tmp_path):
        raise OSError(number, "a shortage")
    assert "free disk space" not in str(raised.value)
