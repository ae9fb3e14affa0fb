"""Trackers by name: TensorBoard's files are read back by TensorBoard."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.runs.trackers import check_trackers, describe_epoch, open_trackers
from distill.training.progress import EpochRecord, Evaluation
from shared.errors import MissingExtraError, UsageError

RECORD = EpochRecord(
    epoch=1,
    scores={"dev": 0.75},
    terms={"aligner/loss": 0.5, "student/total": 1.5, "student/task": 1.0},
    counts={"aligner/loss": 3, "student/total": 6, "student/task": 6},
    steps=6,
    rows=48,
    seconds=2.0,
    done=6,
    evaluations=[Evaluation(6, {"dev": 0.75})],
)


def test_an_epoch_by_name() -> None:
    assert describe_epoch(RECORD) == {
        "dev": 0.75,
        "aligner/loss": 0.5,
        "rows_per_second": 24.0,
        "student/total": 1.5,
        "student/task": 1.0,
    }


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    config = {"seed": 3, "loss": "euclid", "labels": None, "epochs": 2}
    with open_trackers(["tensorboard"], "mine", tmp_path, config) as log:
        log(RECORD, 6)
        log(RECORD, 12)
    events = EventAccumulator(str(tmp_path / "mine"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("student/total")] == [(6, 1.5), (12, 1.5)]
    assert {"dev", "aligner/loss", "rows_per_second", "student/task"} <= set(events.Tags()["scalars"])


def test_no_tracker_logs_nothing(tmp_path: Path) -> None:
    with open_trackers([], "mine", tmp_path, {}) as log:
        log(RECORD, 6)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named_early(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(["tensorboard"])
    find = importlib.util.find_spec

    def hide(name: str, package: str | None = None) -> Any:
        return None if name == "wandb" else find(name, package)

    monkeypatch.setattr("distill.runs.trackers.find_spec", hide)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        check_trackers(["tensorboard", "wandb"])
    with pytest.raises(UsageError, match="there is no tracker 'mlflow'; there are tensorboard, wandb, trackio"):
        check_trackers(["mlflow"])
