"""A file that changes after it was harvested, from file to trained student: nobody is asked about a text twice."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from distill.config import make_distill_config
from distill.run import run_distillation
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, plan_harvest, run_harvest
from shared.shards import Claim, verify_shards
from tests.harvest.fault_server import FaultServer

WORDS = ("negative", "positive")
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loop:
    """The user's loop: a folder of files, a harvest of it, and a student trained on what is kept."""

    server: FaultServer
    student: Path
    root: Path
    has_ids: bool = True

    def write(self, split: str, lines: Sequence[Line]) -> None:
        (self.root / "films").mkdir(exist_ok=True)
        (self.root / "films" / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def configure(self) -> HarvestConfig:
        options = {"endpoint": self.server.url, "model": "m", "dialect": "openai", "scoring": "top_logprobs"}
        task = TaskChoice(
            str(self.root / "films"),
            text_column="review",
            label_column="verdict",
            id_column="id" if self.has_ids else None,
            labels=WORDS,
        )
        return HarvestConfig(task, TeacherChoice("endpoint", options=options), out=self.root / "out")

    def harvest(self) -> Report:
        report = run_harvest(self.configure())
        assert verify_shards(self.root / "out").problems == ()
        return report

    def harvest_without_asking(self) -> Report:
        before = len(self.server.requests)
        planned = plan_harvest(self.configure())
        report = self.harvest()
        assert (planned.to_ask, report.asked, len(self.server.requests)) == (0, 0, before)
        assert planned.changed == report.changed
        return report

    def read(self, split: str) -> dict[str, int | None]:
        """The labels by text, as a reader of the Parquet files alone sees them."""
        rows = pl.read_parquet(self.root / "out" / "teacher=m" / f"split={split}" / "*.parquet")
        assert rows.filter(pl.col("status") != "ok").is_empty()
        return dict(zip(rows["text"].to_list(), rows["label"].to_list(), strict=True))

    def train(self) -> dict[str, int]:
        config = make_distill_config(
            shards=self.root / "out", student=str(self.student), preset="armada", epochs=1, batch_size=16
        )
        _, metrics = run_distillation(config, self.root / "runs")
        rows: dict[str, int] = metrics["rows"]
        return rows


@pytest.fixture
def loop(tmp_path: Path, tiny_student: Path) -> Iterator[Loop]:
    with FaultServer() as server:
        loop = Loop(server, tiny_student, tmp_path)
        loop.write("train", make_lines(24))
        loop.write("validation", make_lines(8, 100))
        loop.write("test", make_lines(4, 200))
        assert loop.harvest().asked == 36
        yield loop


def make_lines(count: int, start: int = 0) -> list[Line]:
    numbers = range(start, start + count)
    return [{"id": f"r{n}", "review": f"a good film number {n}", "verdict": WORDS[n % 2]} for n in numbers]


def test_labels_that_were_corrected_or_added(loop: Loop) -> None:
    lines = make_lines(24)
    for line in lines[:10]:
        line["verdict"] = None
    loop.write("train", lines)
    assert loop.harvest_without_asking().changed == {"relabelled": 10, "moved": 0, "removed": 0}
    assert loop.train() == {"train": 24, "answered": 24, "labelled": 14, "dev": 8}
    lines = [
        {**line, "verdict": WORDS[1 - number % 2]} for number, line in enumerate(lines)
    ]  # ten added, all others new
    loop.write("train", lines)
    assert loop.harvest_without_asking().changed["relabelled"] == 24
    assert loop.read("train") == {line["review"]: WORDS.index(line["verdict"]) for line in lines}
    assert loop.train() == {"train": 24, "answered": 24, "labelled": 24, "dev": 8}
    assert loop.harvest_without_asking().changed["relabelled"] == 0


def test_rows_that_left_come_back_and_are_added(loop: Loop) -> None:
    lines = make_lines(24)
    loop.write("train", lines[:3] + lines[7:])
    assert loop.harvest_without_asking().changed == {"relabelled": 0, "moved": 0, "removed": 4}
    assert set(loop.read("train")) == {line["review"] for line in lines[:3] + lines[7:]}
    assert set(loop.read("removed")) == {line["review"] for line in lines[3:7]}
    assert loop.train() == {"train": 20, "answered": 20, "labelled": 20, "dev": 8}
    loop.write("train", lines)
    assert loop.harvest_without_asking().rows == 36
    assert loop.train()["answered"] == 24
    assert not list(loop.root.glob("out/teacher=m/split=removed/*.parquet"))
    loop.write("train", make_lines(26))
    assert loop.harvest().asked == 2
    assert loop.train()["answered"] == 26


def test_rows_that_went_to_another_split(loop: Loop) -> None:
    loop.write("train", make_lines(20))
    loop.write("validation", make_lines(8, 100) + make_lines(4, 20))
    assert loop.harvest_without_asking().changed == {"relabelled": 0, "moved": 4, "removed": 0}
    assert not set(loop.read("train")) & set(loop.read("validation"))
    assert loop.train() == {"train": 20, "answered": 20, "labelled": 20, "dev": 12}


def test_rows_without_ids_are_known_by_their_texts(tmp_path: Path, tiny_student: Path) -> None:
    with FaultServer() as server:
        loop = Loop(server, tiny_student, tmp_path, has_ids=False)
        loop.write("train", make_lines(24))
        loop.write("validation", make_lines(8, 100))
        loop.harvest()
        lines = make_lines(24)[1:]  # all rows behind the first have another number now
        loop.write("train", lines)
        assert loop.harvest_without_asking().changed == {"relabelled": 0, "moved": 23, "removed": 1}
        assert loop.read("train") == {line["review"]: WORDS.index(line["verdict"]) for line in lines}
        assert set(loop.read("removed")) == {make_lines(1)[0]["review"]}
        assert loop.train()["answered"] == 23
        loop.write("train", make_lines(24))
        loop.harvest_without_asking()
        assert len(loop.read("train")) == 24


def test_nothing_follows_while_another_worker_writes(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    lines = make_lines(24)
    loop.write("train", [{**line, "verdict": WORDS[0]} for line in lines[:20]])
    with Claim(loop.root / "out", "m", "w7"):
        assert loop.harvest().changed == {"relabelled": 0, "moved": 0, "removed": 0}
    assert "The worker w7 writes to this folder too" in capsys.readouterr().err
    assert loop.harvest_without_asking().changed == {"relabelled": 10, "moved": 0, "removed": 4}
