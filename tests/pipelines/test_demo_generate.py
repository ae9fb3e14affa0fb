"""The recipe of the demo whose student writes, with a tiny teacher and student, on review sentences of the test's."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from tests.distill.writing import NUMBERS, make_writer

RECIPE = Path(__file__).parents[2] / "pipelines" / "demo-generate.yaml"
ROLES = {
    "untrained": "control",
    "text": "undistilled",
    "topk": "teacher",
    "topk+tail": "teacher",
    "both": "teacher",
    "shuffled": "control",
}
ROWS = {"train": 24, "validation": 8, "test": 12}


def write_sentences(hub: Path) -> None:
    """Write rotten_tomatoes as the hub has it, each of its texts a few words that the tiny model knows."""
    folder = hub / "datasets" / "cornell-movie-review-data" / "rotten_tomatoes"
    folder.mkdir(parents=True)
    for place, (split, rows) in enumerate(ROWS.items()):
        texts = [" ".join(NUMBERS[digit] for digit in (place, row // 10, row % 10)) for row in range(rows)]
        pl.DataFrame({"text": texts, "label": [row % 2 for row in range(rows)]}).write_parquet(
            folder / f"{split}.parquet"
        )


@pytest.mark.real
def test_the_demo_scores_sentences_and_compares_what_students_learn_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARVEST_DISTILL_HUB", str(tmp_path / "hub"))
    write_sentences(tmp_path / "hub")
    writer = make_writer(tmp_path / "writer")
    changes = ("harvest.model=writer", "harvest.top_logprobs=4", f"student={writer}", "student_layers=2")
    flags = [part for change in changes for part in ("--set", change)]
    command = ["run", str(RECIPE), *flags, "--seed", "0", "--workers", "1"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["harvest"]["asked"] == sum(ROWS.values())
    assert result["metric"] == "agreement"
    group = result["groups"][0]
    assert {one["variant"]: one["role"] for one in group["variants"]} == ROLES
    measures = {(line["variant"], line["measure"]): line for line in group["measures"]}
    assert set(measures) == {(name, measure) for name in ROLES for measure in ("agreement", "nll")}
    for one in group["variants"]:
        assert measures[one["variant"], "agreement"]["mean"] == pytest.approx(one["score"])
    nll, text = measures["topk", "nll"], measures["text", "nll"]
    assert nll["against"]["mean"] == pytest.approx(nll["mean"] - text["mean"])
    assert text["low"] < text["mean"] < text["high"]
    assert text["against"] is None
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert "asked 0 times" in again.stdout
    assert f"{text['mean']:.3f} ({text['low']:.3f} to {text['high']:.3f})" in again.stdout
