"""Where cells are trained, as the user says it, and what a machine must see: without a cluster."""

import subprocess
import sys
from pathlib import Path

import pytest

from distill.compare.hosts import Job
from distill.compare.placing import Placing
from distill.compare.plan import Cell, make_comparison
from distill.compare.ray import HANDING_ON_SECONDS, choose_amounts, count_room, wait_for_killed
from distill.compare.run import run_comparison
from distill.compare.runner import LOCK, count_workers, hold_comparison, list_jobs
from distill.compare.sight import list_tokens, show
from distill.config import make_distill_config
from distill.runs.names import CELLS
from shared.errors import ClusterError, LockedError, MissingExtraError, UsageError
from tests.distill.distill_rows import WriteFolder, make_rows

CELL = Cell("plain", None, 0, make_distill_config(shards="x"))
VARIANTS = {
    "undistilled": {"preset": "armada", "loss": "none", "alpha": 0.0, "gamma": 0.0},
    "armada": {"preset": "armada"},
}
ON_CPU = Cell("plain", None, 0, make_distill_config(shards="x", device="cpu"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cluster": "slurm"}, "--on slurm: cells are trained on ray"),
        ({"per_cell": "gpus=1"}, "--per-cell says what each cell has on a cluster: give --on ray, too"),
        ({"cluster": "ray", "per_cell": "gpu=1"}, "did you mean gpus"),
        ({"cluster": "ray", "per_cell": "gpus=2"}, "computes on one GPU at most"),
        ({"cluster": "ray", "per_cell": "cpus=0"}, "--per-cell cpus=0: give whole cores, 1 or more"),
        ({"cluster": "ray", "workers": 0}, "workers is 0"),
    ],
)
def test_a_plan_that_cannot_be_placed_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_comparison({"shards": "x", "variants": {}, **options}, "the plan")


def test_a_plan_says_it_in_the_words_of_the_flags() -> None:
    content = {"shards": "x", "cluster": "ray://head.example:10001", "per_cell": "gpus=0.5,cpus=2", "workers": 3}
    placing = make_comparison(content, "the plan").placing
    assert placing == Placing(3, "ray://head.example:10001", {"gpus": 0.5, "cpus": 2.0})


def test_a_cluster_that_cannot_be_joined_is_said_before_anything_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    comparison = make_comparison({"shards": str(tmp_path / "none"), "cluster": "ray"}, "the plan")
    with pytest.raises(ClusterError, match=r"--on ray, 127.0.0.1:1: no Ray cluster can be reached there"):
        run_comparison(comparison, tmp_path / "runs")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'harvest-distill\[ray\]'"):
        run_comparison(comparison, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_cell_has_a_gpu_where_there_is_one_and_it_may_use_it() -> None:
    ray, small, large = Placing(cluster="ray"), {"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}
    nodes = {"a": small, "b": large}
    assert choose_amounts([Job(CELL, Path("x"), False)], ray, nodes) == {"cpus": 1, "gpus": 1}
    assert choose_amounts([Job(ON_CPU, Path("x"), False)], ray, nodes) == {"cpus": 1, "gpus": 0}
    assert choose_amounts([Job(CELL, Path("x"), False)], ray, {"a": small}) == {"cpus": 1, "gpus": 0}
    asked = Placing(cluster="ray", per_cell={"gpus": 0.25})
    assert choose_amounts([Job(ON_CPU, Path("x"), False)], asked, nodes) == {"cpus": 1, "gpus": 0.25}


def test_a_machine_has_room_for_as_many_cells_as_its_scarcest_resource_allows() -> None:
    node = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert count_room(node, {"cpus": 1, "gpus": 1}) == 2
    assert count_room(node, {"cpus": 3, "gpus": 0.25}) == 2
    assert count_room(node, {"cpus": 2, "gpus": 0}) == 4
    assert count_room({"CPU": 8.0}, {"cpus": 1, "gpus": 1}) == 0


def test_how_many_are_trained_at_a_time_is_known_where_the_user_says_it() -> None:
    cells = [ON_CPU] * 5
    assert count_workers(cells, Placing(2)) == 2
    assert count_workers(cells, Placing(8, "ray")) == 5
    assert count_workers(cells, Placing(cluster="ray")) is None


def test_what_another_machine_does_not_see_is_named(
    write_folder: WriteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.compare.sight.SEEN_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    shards = write_folder({"train": [make_rows(8)]})
    folder = tmp_path / "runs" / "toy"
    folder.mkdir(parents=True)
    cell = Cell("plain", None, 0, make_distill_config(shards=str(shards)))
    sight = show([Job(cell, Path("runs/toy"), False)])
    assert sight.find_missing() is None
    (token,) = folder.iterdir()
    text = token.read_text()
    token.write_text("of a folder of the same name on another disk")
    assert f"does not see {folder}, or sees another folder" in (sight.find_missing() or "")
    token.write_text(text)
    shards.rename(tmp_path / "elsewhere")
    missing = sight.find_missing() or ""
    assert f"does not see the shards {shards} as they are here (" in missing
    (tmp_path / "elsewhere").rename(shards)
    (manifest,) = shards.glob("**/manifest.json")
    manifest.write_text(manifest.read_text().replace('"made by', '"remade by'))
    assert "others are there" in (sight.find_missing() or "")
    sight.hide()
    assert not list(folder.iterdir())


def test_a_comparison_that_is_being_trained_is_not_trained_a_second_time(tmp_path: Path) -> None:
    with (
        hold_comparison(tmp_path),
        pytest.raises(LockedError, match="give this comparison another name"),
        hold_comparison(tmp_path),
    ):
        pass
    with hold_comparison(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_cells_that_another_process_trains_are_not_removed(write_folder: WriteFolder, tmp_path: Path) -> None:
    shards = str(write_folder({"train": [make_rows(8)]}))
    comparison = make_comparison({"shards": shards, "seeds": [0], "variants": VARIANTS}, "x")
    cell, other = comparison.list_cells()
    (finished := tmp_path / CELLS / cell.name).mkdir(parents=True)  # of other settings
    with hold_comparison(tmp_path), pytest.raises(LockedError):
        list_jobs(comparison, tmp_path, overwrite=True)
    assert finished.exists()
    assert [job.cell for job in list_jobs(comparison, tmp_path, overwrite=True)] == [cell, other]
    assert not finished.exists()


def test_what_a_killed_command_left_on_a_cluster_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("distill.compare.ray.time.sleep", waited.append)
    wait_for_killed([tmp_path])
    assert not waited
    (tmp_path / ".seen-1").touch()
    wait_for_killed([tmp_path])
    assert waited == [HANDING_ON_SECONDS]
    assert "a command that trained it on a cluster could not end its processes" in capfd.readouterr().err
    assert not list_tokens(tmp_path)


def test_a_process_that_hears_nothing_of_its_driver_ends() -> None:
    script = (
        "import time\nfrom distill.compare.ray import DriverWatch\n"
        "watch = DriverWatch(1.0)\n"
        "for _ in range(15):\n    time.sleep(0.1)\n    watch.hear()\n"
        "print('heard', flush=True)\ntime.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (1, "heard\n")
