"""What a run's log says while the run is still going."""

import json
from pathlib import Path

import pytest

from distill.runs.record import describe_progress


def test_a_run_without_an_epoch_says_nothing(tmp_path: Path) -> None:
    assert describe_progress(tmp_path / "not there") == ""
    (tmp_path / "log.jsonl").write_text("")
    assert describe_progress(tmp_path) == ""


@pytest.mark.parametrize(
    ("student", "expected"),
    [({"total": 0.41, "soft": 0.3}, "epoch 2, loss 0.410, dev 0.750"), ({}, "epoch 2, dev 0.750")],
)
def test_the_last_epoch_is_said_with_its_loss(tmp_path: Path, student: dict[str, float], expected: str) -> None:
    lines = [{"epoch": 1, "dev": 0.5, "student": student}, {"epoch": 2, "dev": 0.75, "student": student}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert describe_progress(tmp_path) == expected


def test_a_line_that_is_not_written_to_its_end_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"epoch": 1, "dev"')
    assert describe_progress(tmp_path) == ""
