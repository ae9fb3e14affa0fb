from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harvest import job
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, run_harvest
from harvest.teachers.onto import OntoAnswers, join
from shared.errors import TeacherError, UsageError
from shared.schema import Answer, Status
from shared.shards import choose_teacher, load_manifest, verify_shards
from shared.tasks import Task
from tests.harvest.scripted_teacher import ScriptedTeacher

ROWS = 40


@dataclass
class Answering(ScriptedTeacher):
    """Gives label scores and a reply, as a model's first pass does."""

    name: str = "answers"

    def _answer(self, text: str) -> Answer:
        if "fails" in text:
            return Answer(Status.FAILED, error="a fault of the test", cost_usd=1.0, attempts=1)
        return Answer(Status.OK, reply=text.upper(), label_logprobs=(-0.5, -1.5), residual_mass=0.17, cost_usd=1.0)


@dataclass
class Seeing(ScriptedTeacher):
    """Gives vectors only, as a model's second pass does."""

    name: str = "both"
    price: float = 0.5
    asked: list[str] = field(default_factory=list)

    def recipe(self) -> Mapping[str, Any]:
        return {"teacher": "seeing"}

    def _answer(self, text: str) -> Answer:
        if "unseen" in text:
            return Answer(Status.FAILED, error="too long")
        vector = np.array([len(text), 1.0], np.float32)
        return Answer(Status.OK, embedding=vector, image_sha256=["a" * 64], cost_usd=self.price, attempts=1)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    special = {3: "this fails", 5: "this is unseen"}
    rows = [f"{i},{special.get(i, f'text {i}')},{'ab'[i % 2]}" for i in range(ROWS)]
    path.write_text("\n".join(["name,text,label", *rows]) + "\n")
    return path


def harvest(
    patch: pytest.MonkeyPatch, teacher: ScriptedTeacher, texts: Path, onto: Path | None = None, **more: Any
) -> Report:
    patch.setattr(job, "prepare_teacher", lambda choice: lambda task: teacher)
    task = TaskChoice(str(texts), text_column="text", label_column="label", id_column="name")
    choice = TeacherChoice("scripted")
    return run_harvest(HarvestConfig(task, choice, out=texts.parent / "out", onto=onto, **more))


def read(texts: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(texts.parent / f"out/teacher={name}/**/*.parquet").sort("sample_id")


def test_rows_hold_the_answer_and_the_vector(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harvest(monkeypatch, Answering(), texts)
    answers = texts.parent / "out/teacher=answers"
    report = harvest(monkeypatch, Seeing(), texts, answers)
    assert (report.rows, report.asked, report.failed, report.cost_usd) == (ROWS, ROWS, 2, 0.5 * (ROWS - 1))
    first, both = read(texts, "answers"), read(texts, "both")
    for column in ("sample_id", "text", "label", "reply", "label_logprobs", "residual_mass"):
        assert both[column].to_list() == first[column].to_list(), column
    for row in both.iter_rows(named=True):
        if "unseen" in row["text"]:
            assert (row["status"], row["embedding"], row["error"]) == ("failed", None, "too long")
            assert row["reply"] is not None
        else:
            assert row["embedding"] == [len(row["text"]), 1.0]
            assert row["image_sha256"] == ["a" * 64]
            assert row["status"] == ("failed" if "fails" in row["text"] else "ok")
    assert verify_shards(texts.parent / "out").ok
    recipe = load_manifest(texts.parent / "out/teacher=both").recipe
    assert recipe["onto"] == {"teacher": "answers", "recipe": {"teacher": "scripted", "version": 1}}


def test_a_stopped_second_pass_goes_on_where_it_was(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harvest(monkeypatch, Answering(), texts)
    answers = texts.parent / "out/teacher=answers"
    with pytest.raises(TeacherError, match="went home"):
        harvest(monkeypatch, Seeing(break_after=10), texts, answers)
    again = Seeing()
    report = harvest(monkeypatch, again, texts, answers)
    assert (report.kept, report.asked, len(again.asked)) == (10, ROWS - 10, ROWS - 10)
    assert read(texts, "both")["reply"].to_list() == read(texts, "answers")["reply"].to_list()


def test_a_row_without_an_answer_fails_unasked_and_can_be_asked_later(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harvest(monkeypatch, Answering(), texts, limits={"*": 5})
    answers = texts.parent / "out/teacher=answers"
    kept = set(read(texts, "answers")["sample_id"])
    seeing = Seeing()
    harvest(monkeypatch, seeing, texts, answers, failure_limit=1.0)
    assert len(seeing.asked) == len(kept)
    both = read(texts, "both")
    lacking = both.filter(pl.col("error").str.contains("keeps no answer for it"))
    assert set(lacking["sample_id"]) == set(both["sample_id"]) - kept
    harvest(monkeypatch, Answering(), texts)
    harvest(monkeypatch, Seeing(), texts, answers, retry=(Status.FAILED,))
    assert read(texts, "both")["error"].drop_nulls().to_list() == ["a fault of the test", "too long"]


def test_what_does_not_fit_together_is_refused(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harvest(monkeypatch, Answering(), texts)
    answers = texts.parent / "out/teacher=answers"
    with pytest.raises(UsageError, match="a folder of their own"):
        harvest(monkeypatch, Seeing(name="answers"), texts, answers)
    other = Task("others", "classification", (), labels=("x", "y"))
    with pytest.raises(UsageError, match="not others with"):
        OntoAnswers(Seeing(), choose_teacher(answers), other)


def test_a_failed_vector_makes_a_failed_row() -> None:
    joined = join(Answer(Status.TRUNCATED, reply="r", error="cut"), Answer(Status.OK, embedding=np.ones(2)))
    assert (joined.status, joined.error, joined.reply) == (Status.TRUNCATED, "cut", "r")
    joined = join(Answer(Status.OK, reply="r"), Answer(Status.FAILED, error="no picture"))
    assert (joined.status, joined.error, joined.reply) == (Status.FAILED, "no picture", "r")
