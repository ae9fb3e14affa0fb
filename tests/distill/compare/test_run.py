"""Whole comparisons of a tiny student: resumed, killed, refused; and their report."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distill.cli import app
from distill.compare.placing import Placing
from distill.compare.plan import Comparison
from distill.compare.run import REPORT, run_comparison
from distill.runs.names import CELLS, COMPARISON
from shared.errors import DataError, UsageError
from tests.distill.compare.made_report import check_page
from tests.distill.distill_rows import WriteFolder, make_rows, without_label

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shards(write_folder: WriteFolder) -> Path:
    """A task whose teacher answered the test rows too."""
    return write_folder({"train": [make_rows(64)], "validation": [make_rows(24, 1)], "test": [make_rows(40, 2)]})


def plan(shards: Path, student: Path, **changes: Any) -> Comparison:
    common = {
        "preset": "armada",
        "student": str(student),
        "epochs": 2,
        "batch_size": 16,
        "student_lr": 2e-3,
        "precision": "float32",
    }
    variants = {
        "undistilled": {"loss": "none", "alpha": 0.0, "gamma": 0.0},
        "armada": {"semantics": "code"},
        "shuffled": {"semantics": "code", "control": "shuffled-teacher"},
    }
    placing = Placing(workers=changes.pop("workers", 2))
    defaults = {"common": common, "variants": variants, "seeds": (0, 1), "labels": (20, 40), "placing": placing}
    return Comparison(name="toy", shards=(shards,), **{**defaults, **changes})


@pytest.mark.real
def test_a_comparison_its_resume_and_its_report(shards: Path, tiny_student: Path, tmp_path: Path) -> None:
    chosen = plan(shards, tiny_student, choices={"student_lr": [1e-5, 2e-3]}, labels=(20,), seeds=(0, 1, 2))
    folder, result = run_comparison(chosen, tmp_path / "runs")
    cells = sorted((folder / CELLS).iterdir())
    assert len(cells) == 3 * 2 * 3
    assert {path.name for path in cells[0].iterdir()} == {
        "metrics.json",
        "predictions.npz",
        "row_scores.parquet",
        "log.jsonl",
        "run.log",
    }
    assert json.loads((folder / COMPARISON).read_text()) == json.loads(json.dumps(result))
    (group,) = result["groups"]
    for variant in group["variants"]:
        assert variant["choice_scores"][1] == pytest.approx(variant["validation"]) or variant["choice"] == {
            "student_lr": 1e-5
        }
        assert variant["validation"] == pytest.approx(max(variant["choice_scores"]))
        assert len(variant["curve"]) == 2
    assert result["student_steps"] == 2 * 4
    (verdict,) = result["verdicts"]
    assert (verdict["variant"], verdict["control"]["variant"]) == ("armada", "shuffled")
    assert result["verdict"].startswith("With 20 labels, t's answers (armada)")

    check_page((folder / REPORT).read_text())

    times = {cell: (cell / "metrics.json").stat().st_mtime_ns for cell in cells}
    (folder / CELLS / cells[0].name / "metrics.json").touch()
    del times[cells[0]]
    for path in cells[1].iterdir():
        path.unlink()
    cells[1].rmdir()
    del times[cells[1]]
    _, again = run_comparison(chosen, tmp_path / "runs")
    assert all((cell / "metrics.json").stat().st_mtime_ns == before for cell, before in times.items())
    assert again["groups"][0]["against_undistilled"] == group["against_undistilled"]

    with pytest.raises(UsageError, match="cannot be used: epochs was 2 and is 3"):
        run_comparison(
            plan(shards, tiny_student, labels=(20,), common={**chosen.common, "epochs": 3}), tmp_path / "runs"
        )


@pytest.mark.real
def test_the_command_trains_a_plan_prints_its_verdict_and_the_next_time_trains_nothing(
    write_folder: WriteFolder, tiny_student: Path, tmp_path: Path
) -> None:
    hidden = [without_label(row) for row in make_rows(40, 2)]
    shards = write_folder({"train": [make_rows(64)], "validation": [make_rows(120, 1)], "test": [hidden]})
    chosen = plan(shards, tiny_student)
    variants = {name: chosen.variants[name] for name in ("undistilled", "armada")}
    content = {"shards": str(shards), "labels": [20], "common": dict(chosen.common), "variants": variants}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    arguments = ["compare", str(tmp_path / "small.yaml"), "--seed", "0", "--seed", "1", "--set", "epochs=1"]
    arguments += ["--workers", "1", "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    cells = list((tmp_path / "runs" / "small" / CELLS).iterdir())
    assert len(cells) == 2 * 2
    result = json.loads((tmp_path / "runs" / "small" / COMPARISON).read_text())
    for part in ("undistilled", "armada", "20 labels", " ± ", result["verdict"], "small/report.html"):
        assert part in done.stdout
    assert "the test split has no labels" in done.stderr
    assert result["test_from"] == "validation"
    assert 40 <= result["rows"]["test"] == 120 - result["rows"]["dev"] <= 80
    assert "held out from validation" in (tmp_path / "runs" / "small" / REPORT).read_text()

    times = {cell: (cell / "metrics.json").stat().st_mtime_ns for cell in cells}
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert {cell: (cell / "metrics.json").stat().st_mtime_ns for cell in cells} == times


@pytest.mark.real
@pytest.mark.parametrize(
    ("told", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75), (signal.SIGINT, 75)]
)
def test_ended_it_loses_only_the_cells_that_run_and_leaves_no_process(
    shards: Path, tiny_student: Path, tmp_path: Path, told: signal.Signals, code: int
) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.distill.compare.test_run import plan\nfrom distill.compare.runner import run_cells\n"
        "from shared.errors import StoppedError\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        run_cells(plan(Path(sys.argv[1]), Path(sys.argv[2]), workers=1), Path(sys.argv[3]))\n"
        "    except StoppedError as stop:\n"
        "        sys.exit(stop.exit_code)\n"
    )
    (tmp_path / "child.py").write_text(script)
    folder = tmp_path / "runs" / "toy"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, tmp_path / "child.py", shards, tiny_student, folder],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    while len(finished := list(folder.glob(f"{CELLS}/[!.]*"))) < 2:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(told)
    assert child.wait(600) == code
    while find_session(child.pid):
        assert time.monotonic() < deadline, "a worker outlived the process that was killed"
        time.sleep(0.05)
    kept = {cell: (cell / "metrics.json").stat().st_mtime_ns for cell in finished}
    _, result = run_comparison(plan(shards, tiny_student), tmp_path / "runs")
    assert len(result["groups"]) == 2
    assert all((cell / "metrics.json").stat().st_mtime_ns == before for cell, before in kept.items())


@pytest.mark.real
def test_one_seed_gives_a_table_without_a_test_and_keeps_its_students(
    shards: Path, tiny_student: Path, tmp_path: Path
) -> None:
    chosen = plan(shards, tiny_student, seeds=(3,), labels=(20,), workers=1)
    folder, result = run_comparison(chosen, tmp_path / "runs")
    (group,) = result["groups"]
    assert (result["verdicts"], group["against_undistilled"]) == ([], {})
    assert [len(variant["scores"]) for variant in group["variants"]] == [1, 1, 1]
    assert result["verdict"].startswith("One seed only (3): these are scores, and nothing is tested.")
    page = (folder / REPORT).read_text()
    check_page(page)
    assert "Nothing is tested" in page

    with pytest.raises(UsageError, match="its student was not kept"):
        run_comparison(replace(chosen, keep_students=True), tmp_path / "runs")
    run_comparison(replace(chosen, keep_students=True), tmp_path / "runs", overwrite=True)
    cells = list((folder / CELLS).iterdir())
    assert all((cell / "student/model.safetensors").exists() for cell in cells)

    (cells[0] / "row_scores.parquet").unlink()
    with pytest.raises(UsageError, match="an older version trained it"):
        run_comparison(chosen, tmp_path / "runs")
    (cells[1] / "predictions.npz").unlink()  # as of a method that is no classifier
    _, again = run_comparison(chosen, tmp_path / "runs", overwrite=True)
    confusions = {variant["variant"]: variant["confusion"] for variant in again["groups"][0]["variants"]}
    assert [confusion is None for confusion in confusions.values()].count(True) == 1


def find_session(leader: int) -> list[str]:
    """The processes of a session, but for those that have ended and wait to be collected."""
    listed = subprocess.run(["ps", "-eo", "sess=,stat=,pid="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(leader) and "Z" not in line.split()[1]]


def test_no_rows_to_report_on_is_an_error_before_anything_is_trained(
    write_folder: WriteFolder, tiny_student: Path, tmp_path: Path
) -> None:
    shards = write_folder({"train": [make_rows(32)], "validation": [make_rows(16, 1)]})
    with pytest.raises(DataError, match="has no rows to report on"):
        run_comparison(plan(shards, tiny_student, labels=(None,), workers=1), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_command_names_what_is_wrong(tmp_path: Path, shards: Path) -> None:
    runs = ["--out", str(tmp_path / "runs"), "--workers", "1"]
    for arguments, message in (
        (["--shards", str(tmp_path / "none")], "holds no teacher's answers"),
        (["--shards", str(shards), "--seed", "1", "--seed", "1"], "the seed 1 is given twice"),
        (["--shards", str(shards), "--set", "alhpa=0"], "did you mean alpha"),
        (["--shards", str(shards), "--set", "alpha=7"], "alpha is 7"),
        ([], "needs shards"),
    ):
        done = CliRunner().invoke(app, ["compare", *arguments, *runs])
        assert done.exit_code in (1, 2)
        assert message in done.stderr
    assert not (tmp_path / "runs").exists()
