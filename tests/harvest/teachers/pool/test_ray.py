"""Replicas that Ray places on the nodes of a cluster, simulated on this machine; nodes are killed, and others join.

    RAY_RUNS=10 RAY_ROWS=2000 python -m pytest tests/harvest/teachers/pool/test_ray.py

makes ten runs of 2,000 rows; unless told so it is one of fewer.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.shards import verify_shards
from shared.sources import MINILM
from tests.harvest.teachers.pool.rows import read_rows
from tests.shared.simulated_cluster import NODE, simulate_cluster

pytestmark = pytest.mark.real

RUNS, ROWS = int(os.environ.get("RAY_RUNS", "1")), int(os.environ.get("RAY_ROWS", "240"))
NODES, KILLS = 3, 2
SECONDS = 600


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with simulate_cluster(NODES) as made:
        yield made


def start(folder: Path, address: str | None, *options: str) -> "subprocess.Popen[str]":
    """Start a harvest of the films by the reader, in `folder`; by replicas on the cluster of that address."""
    task = ("--task", "films.csv", "--text-column", "text", "--label-column", "label")
    replicas = () if address is None else ("--on", "ray", "--replicas", str(NODES))
    command = [sys.executable, "-m", "harvest.cli", "run", "--teacher", "reader", "--encoder", MINILM, *task]
    environment = {**os.environ, **({} if address is None else {"RAY_ADDRESS": address})}
    return subprocess.Popen(
        [*command, *replicas, *options], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def write_films(folder: Path) -> Path:
    folder.mkdir()
    rows = [f"film number {i},{('bad', 'good')[i % 2]}" for i in range(ROWS)]
    (folder / "films.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rows of one process."""
    folder = write_films(tmp_path_factory.mktemp("alone") / "run")
    run = start(folder, None)
    _, said = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, said
    return read_rows(folder / "data/films/teacher=reader")


@pytest.mark.parametrize("seed", range(RUNS))
def test_nodes_die_and_each_row_is_kept_once_as_one_process_has_it(
    seed: int, cluster: Any, alone: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    folder, moment = write_films(tmp_path / "run"), random.Random(seed)
    run = start(folder, cluster.address)
    try:
        while not list(folder.glob("data/films/teacher=reader/journal/split=*/*.arrows")) and run.poll() is None:
            time.sleep(0.1)
        for _ in range(KILLS):
            time.sleep(moment.uniform(0, 6))
            cluster.remove_node(moment.choice(list(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(wait=False, **NODE)  # a machine that joins is used
        _, said = run.communicate(timeout=SECONDS)
    finally:
        run.kill()
    assert run.returncode == 0, said
    rows = read_rows(folder / "data/films/teacher=reader")
    assert rows.keys() == alone.keys()
    for name, row in rows.items():
        vector, other = row.pop("embedding"), alone[name]["embedding"]
        assert row == {column: value for column, value in alone[name].items() if column != "embedding"}
        np.testing.assert_allclose(vector, other, atol=2e-3)  # float16, of a batch of other texts
    assert verify_shards(folder / "data/films").ok
    again = start(folder, None, "--json")
    _, said = again.communicate(timeout=SECONDS)
    assert "0 to ask" in said


def test_a_run_whose_cluster_loses_its_head_says_so_and_keeps_what_was_answered(tmp_path: Path, asked: Path) -> None:
    folder = write_films(tmp_path / "run")
    task = ("--task", "films.csv", "--text-column", "text", "--label-column", "label")
    slow = ("--teacher", "echo", "--seconds", "1", "--asked", str(asked))
    with (
        simulate_cluster(1) as own,
        subprocess.Popen(
            [sys.executable, "-m", "harvest.cli", "run", *slow, *task, "--on", "ray", "--replicas", "1"],
            cwd=folder,
            env={**os.environ, "RAY_ADDRESS": own.address},
            stderr=subprocess.PIPE,
            text=True,
        ) as run,
    ):
        try:
            while not list(asked.glob("asked-*")) and run.poll() is None:
                time.sleep(0.1)
            address = own.address
            own.head_node.kill_gcs_server()
            _, said = run.communicate(timeout=SECONDS)
        finally:
            run.kill()
    assert run.returncode == 1, said
    assert f"the head of the Ray cluster ({address}) cannot be reached any more. What was answered is kept" in said
    assert read_rows(folder / "data/films/teacher=echo")
