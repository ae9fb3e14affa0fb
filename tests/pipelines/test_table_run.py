"""The paper's recipe, from files of the hub's layout to its table: twelve tasks, a tiny teacher and student."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipelines.cli import app
from shared.tasks import TASKS
from tests.pipelines.test_table import PAPER, TWELVE
from tests.shared.tasks.hub_files import write_hub

ROWS = {"train": 18, "validation": 120, "test": 12}  # no test row has a label, so half of validation is held out
WITH_CLASSES = ("label-smoothing", "pseudo-labels")
CUT = ("undistilled", "euclid")  # of the variants, so that the suite stays fast


@pytest.fixture
def small(tmp_path: Path, deep_student: Path, tiny_vision: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The flags that put small parts in place of large ones; the hub's files are in a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARVEST_DISTILL_HUB", str(tmp_path / "hub"))
    write_hub(tmp_path / "hub", ROWS)
    settings = {
        "student": deep_student,
        "epochs": 1,
        "student_lr": 1e-3,
        "precision": "float32",
        "harvest.teacher": "encoder",
        "harvest.model": tiny_vision,
    }
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def cut_recipe() -> str:
    """Write the paper's recipe with fewer variants into the working directory, and give its path."""
    recipe: dict[str, Any] = yaml.safe_load(PAPER.read_text())
    recipe["compare"]["variants"] = {name: recipe["compare"]["variants"][name] for name in CUT}
    Path("cut.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return "cut.yaml"


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, ["run", *arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.real
@pytest.mark.parametrize("tasks", [("stsb", "cb"), tuple(TWELVE)])
def test_all_twelve_tasks_become_one_table_and_the_second_time_nothing_is_done(
    small: list[str], tasks: tuple[str, ...]
) -> None:
    command = [cut_recipe(), *small, "--seed", "0", "--student", "BERT-6L", "--workers", "1"]
    command += [part for task in tasks for part in ("--task", task)]
    plan = json.loads(run(*command, "--plan", "--json").stdout)
    assert (plan["rows_to_ask"], plan["cells"], plan["finished"]) == (
        *(len(tasks) * ROWS["train"], len(tasks) * 2),
        0,
    )
    steps = sum(-(-ROWS["train"] // (8 if task in ("cb", "copa", "boolq", "wic") else 32)) for task in tasks)
    assert (plan["student_steps"], plan["hours"]) == (2 * steps, None)
    assert not Path("data").exists()
    assert not Path("runs").exists()

    result = json.loads(run(*command, "--json").stdout)
    folder = Path("runs/armada-understanding")
    assert (result["folder"], result["harvest"]["asked"]) == (str(folder), plan["rows_to_ask"])
    lines = result["lines"]
    assert [(line["task"], line["variant"]) for line in lines] == [(task, name) for task in tasks for name in CUT]
    published = {(line["task"], line["variant"]): line["published"] for line in lines}
    assert (published["stsb", "euclid"], published["cb", "undistilled"]) == (88.5, 75.0)
    assert all(line["metric"] == TASKS[line["task"]].metric for line in lines)
    for line in lines:
        comparison = json.loads((folder / f"{line['task']}-BERT-6L" / "comparison.json").read_text())
        (one,) = (each for each in comparison["groups"][0]["variants"] if each["variant"] == line["variant"])
        assert line["test"] == {"mean": pytest.approx(100 * one["score"]), "deviation": None, "n": 1}
        assert line["dev"]["mean"] == pytest.approx(100 * one["validation"])
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test_mean"]) for row in rows] == pytest.approx([line["test"]["mean"] for line in lines])
    assert "| cb | accuracy | BERT-6L | all | euclid | 78.5 |" in (folder / "table.md").read_text()

    trained = {path: path.stat().st_mtime_ns for path in folder.glob("*/cells/*/metrics.json")}
    again = run(*command)
    assert "the teacher was asked 0 times in this run" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/cells/*/metrics.json")} == trained
    assert len(trained) == len(tasks) * 2


@pytest.mark.real
def test_the_recipe_as_it_stands_with_all_its_variants_and_students(small: list[str]) -> None:
    tasks = ("stsb", "cb")
    chosen = [part for task in tasks for part in ("--task", task)]
    result = json.loads(run(str(PAPER), *small, *chosen, "--seed", "0", "--seed", "1", "--json").stdout)
    lines = result["lines"]
    variants = yaml.safe_load(PAPER.read_text())["compare"]["variants"]
    for task in tasks:
        for student in ("BERT-6L", "BERT-base"):
            found = [line["variant"] for line in lines if (line["task"], line["student"]) == (task, student)]
            assert found == [name for name in variants if task != "stsb" or name not in WITH_CLASSES]
    assert {line["test"]["n"] for line in lines} == {2}
    assert {line["student"] for line in lines if line["published"] is None and line["variant"] == "euclid"} == set()
