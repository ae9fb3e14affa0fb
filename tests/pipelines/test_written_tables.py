"""The paper's recipes of students that write, from files of the hub's layout to their tables, with tiny parts."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from distill.cli import app as distill
from harvest.cli import app as harvest
from pipelines.cli import app as pipeline
from tests.distill.writing import NUMBERS, make_writer

PIPELINES = Path(__file__).parents[2] / "pipelines"
ROWS = 40
CUT = ("undistilled", "euclid")  # of the variants, so that the suite stays fast


def make_rows(count: int, answer: str) -> list[dict[str, str]]:
    """Sums in the words of the tiny model, each its own row; `answer` is what is written around a sum."""
    digits = [[int(digit) for digit in f"{row:04}"] for row in range(count)]
    return [
        {
            "instruction": "what is " + " plus ".join(NUMBERS[digit] for digit in each),
            "input": "",
            "output": answer.format(NUMBERS[sum(each) % 10]),
            "answer": NUMBERS[sum(each) % 10],
        }
        for each in digits
    ]


def write_hub(hub: Path) -> None:
    """Write the training sets of both recipes, and ARC-Easy, as the hub has them, and math_10k beside them."""
    common = hub / "datasets" / "zwhe99" / "commonsense_170k" / "data"
    common.mkdir(parents=True)
    pl.DataFrame(make_rows(ROWS, "the correct answer is {}")).write_parquet(common / "train-00000-of-00001.parquet")
    Path("math_10k.json").write_text(json.dumps(make_rows(ROWS, "The answer is {}")))
    dolly = hub / "datasets" / "MiniLLM" / "dolly"
    dolly.mkdir(parents=True)
    for name, count in (("raw", 1_000 + ROWS), ("valid", 6)):
        lines = [json.dumps({**row, "prompt": "unused"}) for row in make_rows(count, "{}")]
        (dolly / f"{name}.jsonl").write_text("\n".join(lines))
    arc = hub / "datasets" / "allenai" / "ai2_arc" / "ARC-Easy"
    arc.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [
            {"id": f"{split}{row}", "question": f"what is {NUMBERS[row]}", "answerKey": "AB"[row % 2]}
            for row in range(6)
        ]
        choices = {"text": ["zero", "one"], "label": ["A", "B"]}
        pl.DataFrame([{**row, "choices": choices} for row in rows]).write_parquet(
            arc / f"{split}-00000-of-00001.parquet"
        )


@pytest.fixture
def small(tmp_path: Path, tiny_vision: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The flags that put small parts in place of large ones; the hub's files are in a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARVEST_DISTILL_HUB", str(tmp_path / "hub"))
    write_hub(tmp_path / "hub")
    settings = {
        "student": make_writer(tmp_path / "writer"),
        "epochs": 1,
        "precision": "float32",
        "reconstruction_epochs": 1,
        "decoding": '["max_new_tokens=3"]',
        "sequence_length": 120,
        "dev_rows": 4,
        "harvest.teacher": "encoder",
        "harvest.model": tiny_vision,
        "harvest.limit": "{train: 16, validation: 4, test: 4}",
    }
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def cut_recipe(name: str) -> str:
    """Write a recipe with fewer variants into the working directory, and give its path."""
    recipe: dict[str, Any] = yaml.safe_load((PIPELINES / name).read_text())
    recipe["compare"]["variants"] = {each: recipe["compare"]["variants"][each] for each in CUT}
    Path(name).write_text(yaml.safe_dump(recipe, sort_keys=False))
    return name


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "tasks", "students"),
    [
        ("armada-reasoning", ["commonsense_8k", "math_10k"], ["LLaMA-7B"]),
        ("armada-instruction", ["dolly"], ["LLaMA-3.2-3B", "LLaMA-3.1-8B"]),
    ],
)
def test_a_recipe_becomes_a_table(
    small: list[str], tiny_vision: Path, name: str, tasks: list[str], students: list[str]
) -> None:
    command = ["run", cut_recipe(f"{name}.yaml"), *small, "--seed", "0", "--workers", "1", "--json"]
    done = CliRunner().invoke(pipeline, command)
    assert done.exit_code == 0, done.output
    lines = json.loads(done.stdout)["lines"]
    assert [(line["task"], line["student"], line["variant"]) for line in lines] == [
        (task, student, variant) for task in tasks for student in students for variant in CUT
    ]
    assert {line["metric"] for line in lines} == {"rouge_l" if tasks == ["dolly"] else "accuracy"}
    run = f"runs/{name}/{tasks[0]}-{students[0]}/cells/euclid-nall-c0-s0"
    assert Path(run, "adapter").is_dir()
    metrics = json.loads(Path(run, "metrics.json").read_text())
    assert metrics["config"]["learn"] == ["reference", "vectors"]
    assert metrics["aligner_steps"] > 0
    if name == "armada-reasoning":
        check_another_task(run, tiny_vision)


def check_another_task(run: str, teacher: Path) -> None:
    """Score a kept student on a test set that it was not trained on: its rows are carried along, and nobody asked."""
    given = ["run", "--teacher", "encoder", "--model", str(teacher), "--task", "arc_easy", "--split", "test"]
    done = CliRunner().invoke(harvest, [*given, "--ask", "none", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["asked"] == 0
    flags = ["--shards", "data/arc_easy", "--split", "test", "--template", "lm-eval", "--json"]
    scored = CliRunner().invoke(distill, ["eval", run, *flags])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["rows"] == 6
