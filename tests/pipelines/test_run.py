"""A whole recipe over a file of one's own: harvested from a server on this machine, trained, and not done again."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipelines.cli import app
from tests.distill.distill_rows import WORDS
from tests.harvest.fault_server import FaultServer

ROWS = {"train": 40, "validation": 16, "test": 24}


@pytest.fixture(autouse=True)
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three CSV files in a folder, which is the working directory's `films`."""
    monkeypatch.chdir(tmp_path)
    generator = random.Random(0)
    for split, count in ROWS.items():
        path = Path("films") / f"{split}.csv"
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["review", "verdict"])
            for number in range(count):
                words = [WORDS[number % 6], split, str(number), *generator.choices(WORDS[6:], k=5)]
                writer.writerow([" ".join(words), ("negative", "positive")[number % 6 // 3]])


def write_recipe(server: FaultServer, student: Path, **changes: Any) -> Path:
    harvest = {
        **{"task": "films", "text_column": "review", "label_column": "verdict", "teacher": "endpoint"},
        **{"label_words": ["negative", "positive"], "question": "Did they like it?", "ask": ["train"]},
        **{"endpoint": server.url, "model": "m", "name": "mine"},
    }
    compare = {
        "seeds": [0],
        "labels": [20],
        "workers": 1,
        "keep_students": True,
        "common": {"student": str(student), "epochs": 1, "batch_size": 8, "student_lr": 2e-3},
        "variants": {"undistilled": {"undistilled": True}, "armada": {"semantics": "code"}},
    }
    path = Path("recipe.yaml")
    path.write_text(
        yaml.safe_dump({"name": "trial", "harvest": harvest, "compare": {**compare, **changes}}, sort_keys=False)
    )
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", *arguments])


def find_times(folder: Path) -> dict[str, int]:
    """When each cell's metrics were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("cells/*/metrics.json")}


def test_a_recipe_runs_and_the_second_time_asks_and_trains_nothing(tiny_student: Path) -> None:
    with FaultServer() as server:
        recipe = str(write_recipe(server, tiny_student))
        plan = json.loads(run(recipe, "--plan", "--json").stdout)
        assert (plan["rows_to_ask"], plan["cells"], plan["finished"], plan["hours"]) == (ROWS["train"], 2, 0, None)
        assert "hours are unknown until one cell has run" in run(recipe, "--plan").stdout
        assert server.count.answered.total() == 0
        first = run(recipe, "--json")
        assert first.exit_code == 0, first.output
        result = json.loads(first.stdout)
        assert result["harvest"]["asked"] == ROWS["train"] == server.count.answered.total()
        folder = Path(result["comparison"])
        assert folder == Path("runs/trial")
        (group,) = result["groups"]
        assert [one["variant"] for one in group["variants"]] == ["undistilled", "armada"]
        assert group["against_undistilled"] == {}
        trained = find_times(folder)
        assert set(trained) == {"undistilled-n20-c0-s0", "armada-n20-c0-s0"}

        again = run(recipe)
        assert again.exit_code == 0, again.output
        assert "the teacher was asked 0 times in this run" in again.stdout
        assert server.count.answered.total() == ROWS["train"]
        plan = json.loads(run(recipe, "--plan", "--json", "--seed", "0", "--seed", "1").stdout)
        assert (plan["rows_to_ask"], plan["cells"], plan["finished"]) == (0, 2 * 2, 2)
        assert plan["student_steps"] == 2 * ROWS["train"] / 8
        spent = [json.loads(path.read_text())["seconds"] for path in folder.glob("cells/*/metrics.json")]
        assert plan["hours"] == pytest.approx(sum(spent) / 3600)
        changed = json.loads(run(recipe, "--plan", "--json", "--set", "epochs=2").stdout)
        assert (changed["finished"], list(changed["trainings"][0]["unusable"].values())) == (
            0,
            ["epochs was 1 and is 2"] * 2,
        )
    assert find_times(folder) == trained
    student = folder / "cells/armada-n20-c0-s0/student"
    for part in ("armada", "One seed only", f"report: {folder}/report.html", f"student: {student}"):
        assert part in again.stdout
    assert (student / "config.json").exists()
    assert "2 of 2 cells are finished" in again.stderr


def test_a_harvest_that_stops_trains_nothing(tiny_student: Path) -> None:
    with FaultServer() as server:
        recipe = str(write_recipe(server, tiny_student))
        done = run(recipe, "--set", "harvest.max_requests=5")
        asked = server.count.answered.total()
    assert done.exit_code == 1
    assert asked <= 5
    assert "No student was trained" in done.stderr
    assert not Path("runs").exists()
