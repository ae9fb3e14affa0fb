"""A teacher's agreement with known answers: by label or by rule, draws and refusals apart, said by every command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from harvest.cli import app
from harvest.looking.agreement import describe_agreement, find_wilson_interval, judge_folder
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards import TeacherFolder
from tests.harvest.fault_server import FaultServer, make_reply
from tests.shared.shards.shard_rows import make_manifest


def keep(folder: Path, rows: dict[str, Sequence[Row]], **manifest: Any) -> Path:
    with TeacherFolder.open(folder, make_manifest(**manifest)) as opened:
        for split, some in rows.items():
            opened.append(split, some)
        opened.commit()
        opened.seal()
        return opened.path


def make_row(number: int, answer: Answer, draw: int = 0, **example: Any) -> Row:
    return Row(Example(str(number), f"text {number}", **example), f"{number:060x}{draw:04x}", draw, answer)


@pytest.mark.parametrize(("right", "judged"), [(0, 9), (7, 9), (9, 9), (433, 1000)])
def test_the_interval_is_wilsons(right: int, judged: int) -> None:
    exact = binomtest(right, judged).proportion_ci(0.95, method="wilson")
    assert find_wilson_interval(right, judged) == pytest.approx((exact.low, exact.high), abs=1e-6)
    assert find_wilson_interval(0, 0) == (None, None)


def test_the_most_probable_label_is_held_against_the_known_one(tmp_path: Path) -> None:
    yes = Answer(Status.OK, label_logprobs=[-0.1, -3.0], residual_mass=0.0)
    rows = [make_row(number, yes, label=label) for number, label in enumerate((0, 0, 0, 1, None))]
    refused = [make_row(8, Answer(Status.REFUSED), label=1), make_row(9, Answer(Status.FAILED, error="x"), label=1)]
    carried = [make_row(number, Answer(Status.UNASKED), label=1) for number in (20, 21)]
    path = keep(tmp_path, {"train": [*rows, *refused], "test": carried}, labels=("yes", "no"))
    agreement = judge_folder(path)
    assert agreement is not None
    (split,) = agreement.describe()["splits"].values()
    assert (split["right"], split["judged"], split["share"]) == (3, 4, 0.75)
    assert (split["refused"], split["unread"]) == (1, 1)
    (line,) = describe_agreement(agreement.describe())
    assert "3 of 4 answers are right" in line
    assert "not judged: 1 refused, 1 unread" in line


def test_replies_are_judged_by_the_tasks_rule_and_draws_are_apart(tmp_path: Path) -> None:
    said = {0: ("it is 7", "it is 8"), 1: ("3", "the answer is 7"), 2: ("5", "6")}
    rows = [
        make_row(number, Answer(Status.OK, reply=reply), draw, target_text="7")
        for number, replies in said.items()
        for draw, reply in enumerate(replies)
    ]
    path = keep(tmp_path, {"train": rows}, kind="generation", labels=(), answer_rule="number")
    agreement = judge_folder(path)
    assert agreement is not None
    count = agreement.splits["train"]
    assert (count.judged, count.right, count.drawn, count.drawn_right) == (3, 1, 6, 2)
    assert (count.prompts, count.prompts_right) == (3, 2)
    assert "2 of 3 prompts" in describe_agreement(agreement.describe())[0]
    without = keep(tmp_path / "other", {"train": rows}, kind="generation", labels=())
    assert judge_folder(without) is None


def test_every_run_the_status_and_the_card_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pl.DataFrame({"text": [f"film {i}" for i in range(8)], "label": ["good", "bad", "good", "good"] * 2})
    frame.write_parquet("films.parquet")
    with FaultServer(answer=lambda asked: make_reply("good", {"good": -0.1, "bad": -3.0})) as server:
        flags = ["--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"]
        flags += ["--task", "films.parquet", "--text-column", "text", "--label-column", "label"]
        for _ in range(2):
            result = CliRunner().invoke(app, ["run", *flags, "--scoring", "top_logprobs", "--json"])
            assert result.exit_code == 0, result.output
            splits = json.loads(result.stdout)["agreement"]["splits"]
            assert (splits["all"]["right"], splits["all"]["judged"]) == (6, 8)
        said = CliRunner().invoke(app, ["run", *flags, "--scoring", "top_logprobs"], env={"COLUMNS": "200"}).stdout
        assert "all: 6 of 8 answers are right by the most probable label, 75.0%" in said
    status = json.loads(CliRunner().invoke(app, ["status", "data", "--json"]).stdout)
    assert status["teachers"][0]["agreement"]["splits"] == splits
    assert "6 of 8 answers are right" in CliRunner().invoke(app, ["status", "data"], env={"COLUMNS": "200"}).stdout
    assert "6 of 8 answers are right" in Path("data/films/README.md").read_text()
