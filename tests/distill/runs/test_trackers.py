"""Trackers by name, each with its own package: what they hold is read back by their own readers. Nothing is sent."""

import importlib.util
import json
import os
import signal
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from distill.config import make_distill_config
from distill.run import run_distillation
from distill.runs.trackers import Curves, TrackedRun, check_trackers, describe_values, open_trackers
from distill.training.progress import CurvePoint
from shared.errors import Error, MissingExtraError, StoppedError, UsageError
from tests.distill.distill_rows import WriteFolder, make_rows

Held = dict[str, list[tuple[Any, Any]]]  # by the name of a value: its steps and what it was

KEY = "sk-canary-0123456789abcdef"


def make_point(step: int) -> CurvePoint:
    terms = {"aligner/loss": 0.5, "student/total": 1.5, "student/task": float("nan")}
    rates = {"student_optimizer": 2e-4}
    return CurvePoint(step, 1, terms, {"dev": 0.75}, rates, rows=48, seconds=2.0)


def make_run(folder: Path, task: str = "a/task") -> TrackedRun:
    config = {"seed": 3, "loss": "euclid", "labels": None, "epochs": 2, "texts": f"https://me:{KEY}@host/"}
    return TrackedRun("mine", task, "r1", False, folder, config)


def read_tensorboard(folder: Path) -> Held:
    """Every value that the event files hold: none is hidden where a step is there twice."""
    held: Held = {}
    for path in sorted(folder.rglob("events.out.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("tensor") and value.tensor.float_val:
                    held.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return held


def read_wandb(folder: Path) -> Held:
    """What the file of an offline run holds: W&B's own records, framed as LevelDB frames its log."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("offline-run-*/run-*.wandb")
    held: Held = {}
    for framed in read_frames(path.read_bytes()):
        record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(framed)
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for name, value in items.items():
            held.setdefault(name, []).append((int(items["_step"]), json.loads(value)))
    return held


def read_frames(data: bytes) -> Iterator[bytes]:
    """The records of a file of blocks of 32 KiB (https://github.com/google/leveldb/blob/main/doc/log_format.md)."""
    at, record = 7, b""  # behind W&B's own header
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if left < 7 or kind == 0:
            at += left
            continue
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def read_trackio(folder: Path) -> Held:
    """What the local database of trackio holds, whatever run and project it is of."""
    held: Held = {}
    (path,) = folder.glob("*.db")
    with sqlite3.connect(path) as database:
        for step, metrics in database.execute("SELECT step, metrics FROM metrics ORDER BY step"):
            for name, value in json.loads(metrics).items():
                held.setdefault(name, []).append((step, value))
    database.close()
    return held


READERS: dict[str, Callable[[Path], Held]] = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "trackio": read_trackio,
}


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for all that trackers write, with nothing of the user's and no way to send anything."""
    settings = {
        **{"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
        **{"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_PROJECT", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "tracker",
    ["tensorboard", pytest.param("wandb", marks=pytest.mark.real), pytest.param("trackio", marks=pytest.mark.real)],
)
@pytest.mark.filterwarnings("ignore")  # of the trackers' packages
@pytest.mark.real
def test_a_run_that_is_stopped_goes_on_in_its_tracker_without_doubled_steps(
    tracker: str, private: Path, write_folder: WriteFolder, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_folder({"train": [make_rows(96)], "validation": [make_rows(24, 1)]})
    options: dict[str, Any] = {"student": str(tiny_student), "epochs": 2, "batch_size": 8, "loss": ["cosine"]}
    config = make_distill_config(owner="a test", shards=[shards], **options)
    log_point = Curves.log_point

    def stop_at(self: Curves, point: CurvePoint) -> None:
        log_point(self, point)
        if point.step == 15:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Curves, "log_point", stop_at)
    with pytest.raises(StoppedError):
        run_distillation(config, private / "runs", "mine", trackers=[tracker])
    monkeypatch.setattr(Curves, "log_point", log_point)
    folder, metrics = run_distillation(config, private / "runs", "mine", trackers=[tracker])

    log = (folder / "run.log").read_text()
    assert [log.count(said) for said in ("  begins  ", "  started  ", "  epoch  ", "goes_on True", "  finished  ")] == [
        *(2, 2, 2, 1, 1)
    ]
    assert "StoppedError: mine was stopped by SIGTERM in epoch 2 after step 3" in log

    held = READERS[tracker](private / "trackio" if tracker == "trackio" else folder / "trackers")
    points = [point for line in (folder / "log.jsonl").read_text().splitlines() for point in json.loads(line)["curve"]]
    assert [point["step"] for point in points] == list(range(1, 25))
    for term in ("student/total", "student/task", "student/soft", "student/match"):
        assert held[term] == [(point["step"], pytest.approx(point[term])) for point in points], term
    assert held["dev"] == [(point["step"], pytest.approx(point["dev"])) for point in points if point["dev"] is not None]
    assert {"aligner/loss", "student/learning_rate", "aligner/learning_rate", "rows_per_second", "epoch"} <= held.keys()
    assert held["final/dev_best"] == [(25, pytest.approx(metrics["dev_best"]))]


@pytest.mark.filterwarnings("ignore")
def test_what_tensorboard_reads_of_a_run(tmp_path: Path) -> None:
    with open_trackers(["tensorboard"], make_run(tmp_path)) as curves:
        curves.log_point(make_point(6))
        curves.log_point(make_point(6))
        curves.log_result({"dev_best": 0.5, "test": None, "seconds": 3})
    events = EventAccumulator(str(tmp_path / "mine"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("student/total")] == [(6, 1.5)]
    assert set(events.Tags()["scalars"]) == {
        *("dev", "aligner/loss", "student/total", "student/learning_rate", "rows_per_second", "epoch"),
        *("final/dev_best", "final/seconds"),
    }
    assert "_hparams_/session_start_info" in events.summary_metadata
    (file,) = tmp_path.rglob("events.out.*")
    assert b"euclid" in file.read_bytes()
    assert KEY.encode() not in file.read_bytes()
    assert describe_values(make_point(6))["rows_per_second"] == 24.0


def test_a_tracker_that_does_not_start_is_named_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(Error, match=r"tracker tensorboard did not start \(\w+: .*nothing was trained yet"),
        open_trackers(["tensorboard"], make_run(tmp_path / "file")),
    ):
        pass


@pytest.mark.filterwarnings("ignore")
def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        def log(self, values: Any, step: int) -> None:
            raise OSError(f"no room for {KEY}")

    def start(*names: Any, **options: Any) -> Failing:
        print("trackio is here")
        return Failing()

    def finish() -> None:
        raise AssertionError("it failed before")

    package = ModuleType("trackio")
    package.__dict__.update(init=start, finish=finish)
    monkeypatch.setitem(sys.modules, "trackio", package)
    with open_trackers(["trackio", "tensorboard"], make_run(tmp_path)) as curves:
        for step in (1, 2, 3):
            curves.log_point(make_point(step))
    out, err = capsys.readouterr()
    assert out == "", "what a tracker prints is no result"
    said = " ".join(err.split())
    assert said.count("the tracker trackio failed (OSError: no room for [redacted]); the run goes on") == 1
    assert [step for step, _ in read_tensorboard(tmp_path)["dev"]] == [1, 2, 3]


def test_no_tracker_logs_nothing(tmp_path: Path) -> None:
    with open_trackers([], make_run(tmp_path)) as curves:
        curves.log_point(make_point(6))
    assert list(tmp_path.iterdir()) == []


def test_a_project_is_the_task_unless_the_user_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert make_run(tmp_path).project == "a-task"
    assert make_run(tmp_path, task="/").project == "distill"
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    assert make_run(tmp_path).project == "ours"


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
