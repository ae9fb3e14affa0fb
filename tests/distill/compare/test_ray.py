"""Cells that Ray places on nodes that it simulates on this machine: stopped, with a node lost, and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill.runs.names import CELLS, CHECKPOINT, EPOCHS, LOG
from distill.runs.record import ROW_SCORES
from tests.distill.distill_rows import WriteFolder, make_rows
from tests.shared.simulated_cluster import NODE, simulate_cluster

pytestmark = pytest.mark.real

NODES = 2
EPOCH_COUNT = 200  # so that a cell is still being trained when it is looked for
SECONDS = 600


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with simulate_cluster(NODES) as made:
        yield made


@dataclass(frozen=True)
class Plan:
    """A plan of two variants and two seeds, in a folder with its shards."""

    folder: Path

    @property
    def cells(self) -> Path:
        return self.folder / "runs" / "toy" / CELLS

    def start(self, address: str | None, *options: str, opened: int | None = None) -> "subprocess.Popen[str]":
        """Start the comparison, on the cluster of that address; the process inherits the `opened` folder."""
        on = () if address is None else ("--on", "ray")
        environment = {**os.environ, **({} if address is None else {"RAY_ADDRESS": address})}
        return subprocess.Popen(
            [sys.executable, "-m", "distill.cli", "compare", "toy.yaml", *on, *options],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=() if opened is None else (opened,),
        )

    def finish(self, run: "subprocess.Popen[str]") -> str:
        """Wait for a comparison that must end well; give what it said."""
        _, said = run.communicate(timeout=SECONDS)
        assert run.returncode == 0, said
        return said

    def wait_for_training(self, run: "subprocess.Popen[str]") -> None:
        """Wait until a cell is being trained on each node."""
        ends = time.monotonic() + SECONDS
        while sum(bool(log.read_text()) for log in self.cells.glob(f".*.partial/{EPOCHS}")) < NODES:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < ends
            time.sleep(0.05)

    def read_scores(self) -> dict[str, Any]:
        """The scores of each row, by cell."""
        return {cell.name: pq.read_table(cell / ROW_SCORES).to_pydict() for cell in self.cells.glob("[!.]*")}


@pytest.fixture
def plan(write_folder: WriteFolder, tiny_student: Path, tmp_path: Path) -> Plan:
    shards = write_folder({"train": [make_rows(64)], "validation": [make_rows(24, 1)], "test": [make_rows(40, 2)]})
    common = {"preset": "armada", "student": str(tiny_student), "epochs": EPOCH_COUNT, "batch_size": 16}
    content = {
        "shards": str(shards.relative_to(tmp_path)),
        "labels": [20],
        "seeds": [0, 1],
        "common": {**common, "precision": "float32"},
        "variants": {"undistilled": {"loss": "none", "alpha": 0.0, "gamma": 0.0}, "armada": {"semantics": "code"}},
    }
    (tmp_path / "toy.yaml").write_text(json.dumps(content))
    return Plan(tmp_path)


def test_stopped_and_with_a_node_lost_cells_come_to_the_scores_of_this_machine(plan: Plan, cluster: Any) -> None:
    stopped = plan.start(cluster.address)
    plan.wait_for_training(stopped)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=SECONDS)
    assert stopped.returncode == 75, said
    assert "SIGINT stopped the comparison. Finished cells are kept" in said
    kept = list(plan.cells.glob(f".*.partial/{CHECKPOINT}"))
    assert len(kept) == NODES
    assert not list(plan.cells.parent.glob(".*")), "a token or a lock was left"

    for log in plan.cells.glob(f".*.partial/{EPOCHS}"):
        log.unlink()  # of what was stopped; the next run begins it anew
    gone_on = plan.start(cluster.address)
    plan.wait_for_training(gone_on)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    cluster.add_node(wait=False, **NODE)
    assert "its process on the cluster was lost" in plan.finish(gone_on)
    on_cluster = plan.read_scores()
    assert len(on_cluster) == 4
    for checkpoint in kept:
        name = checkpoint.parent.name.removeprefix(".").removesuffix(".partial")
        assert "unfinished: going on from its checkpoint" in (plan.cells / name / LOG).read_text()

    assert "4 of 4 cells are finished already" in plan.finish(plan.start(None))
    for cell in plan.cells.iterdir():
        cell.rename(cell.parent.parent / cell.name)
    plan.finish(plan.start(None, "--workers", str(NODES)))
    assert plan.read_scores() == on_cluster


def find_training() -> list[int]:
    """The processes of cells that train on the nodes."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if (
                b"spawn_main" in (process / "cmdline").read_bytes()
                and b"CellActor" in Path("/proc", parent, "cmdline").read_bytes()
            ):
                found.append(int(process.name))
    return found


def test_a_cell_whose_process_is_told_to_end_goes_on_elsewhere(plan: Plan, cluster: Any) -> None:
    run = plan.start(cluster.address)
    plan.wait_for_training(run)
    os.kill(find_training()[0], signal.SIGTERM)  # as all processes of a machine that is drained
    assert "its process on the cluster was lost" in plan.finish(run)
    assert len(plan.read_scores()) == 4


def test_a_cell_that_fails_ends_the_comparison_while_others_wait_for_a_place(plan: Plan, cluster: Any) -> None:
    content = json.loads((plan.folder / "toy.yaml").read_text())
    content["common"]["student_lr"] = 1e30
    (plan.folder / "toy.yaml").write_text(json.dumps(content))
    run = plan.start(cluster.address, "--workers", "4")
    _, said = run.communicate(timeout=SECONDS)
    assert run.returncode == 1, said
    assert "the loss is not finite any more" in said
    assert not plan.read_scores()


def test_a_comparison_whose_cluster_loses_its_head_says_so_and_goes_on(plan: Plan) -> None:
    with simulate_cluster(NODES) as own, plan.start(own.address) as run:
        try:
            plan.wait_for_training(run)
            own.head_node.kill_gcs_server()
            _, said = run.communicate(timeout=SECONDS)
        finally:
            run.kill()
    assert run.returncode == 1, said
    assert "the head of the Ray cluster" in said
    assert "Its last checkpoint is kept" in said
    assert "could not end its processes there" in plan.finish(plan.start(None, "--workers", str(NODES)))
    assert len(plan.read_scores()) == 4


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        (["--out", "/proc/self/fd/{}/runs"], "it does not see /proc/self/fd/{}/runs/toy, or sees another folder"),
        (["--shards", "/proc/self/fd/{}/data/toy"], "it does not see the shards /proc/self/fd/{}/data/toy"),
    ],
)
def test_a_node_that_does_not_see_what_this_machine_sees_is_refused(
    hidden: list[str], said: str, plan: Plan, cluster: Any
) -> None:
    opened = os.open(plan.folder, os.O_RDONLY)  # its path under /proc/self is that of this process alone
    try:
        options = [each.format(opened) for each in hidden]
        run = plan.start(cluster.address, *options, opened=opened)
        _, told = run.communicate(timeout=SECONDS)
    finally:
        os.close(opened)
    assert run.returncode == 1, told
    assert said.format(opened) in " ".join(told.split())
    assert "no cell can be trained on the machine" in told
    assert not plan.read_scores()
