"""Events as lines of JSON and as a run's log file: what stands there, and what a disk that is full costs."""

import json
import os
import re
import warnings
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from shared import console
from shared.errors import DataError
from shared.events import emit
from shared.log_files import keep_log
from tests.shared.full_disk import limit_file_size

KEY = "sk-canary-0123456789abcdef"

app = typer.Typer()


@app.command()
@console.command
def work(log_json: console.LogJson = None, fails: bool = False, as_json: console.AsJson = False) -> None:
    console.say(f"asking with {KEY}")
    with console.track("asking", 2) as tracker:
        tracker.observe(lambda: {"asked": 2, "cost_usd": float("nan"), "causes": {KEY: 1}})
        tracker.advance(2, "fast")
    if fails:
        raise DataError(f"row 3 of {KEY}")
    console.print_json({"rows": 2})


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("target", ["-", "events.jsonl"])
def test_events_are_lines_of_json(target: str, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["--log-json", target, "--json", *(["--fails"] if fails else [])])
    assert done.exit_code == fails
    said = done.stderr if target == "-" else Path(target).read_text()
    events = [json.loads(line) for line in said.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("time")) for event in events)
    progress = {"what": "asking", "done": 2, "total": 2, "asked": 2, "cost_usd": None, "causes": {"[redacted]": 1}}
    error = {"event": "error", "text": "row 3 of [redacted]", "kind": "DataError", "exit_code": 1}
    assert events[0] == {"event": "notice", "text": "asking with [redacted]"}
    assert progress.items() <= events[1].items()
    assert events[2:] == ([error] if fails else [])
    assert done.stdout == ("" if fails else '{"rows": 2}\n')
    assert target == "-" or "asking with" in done.stderr, "the person is told as before"
    again = CliRunner().invoke(app, [])
    assert "asking: 2/2" in again.stderr, "nothing is left of it"


def test_a_place_that_cannot_be_written_is_refused_and_a_full_one_goes_quiet(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["--log-json", str(tmp_path / "no" / "events.jsonl")])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "cannot be written" in refused.stderr
    assert "asking" not in refused.stderr
    full = CliRunner().invoke(app, ["--log-json", "/dev/full", "--json"])
    assert (full.exit_code, full.stdout) == (0, '{"rows": 2}\n')
    assert full.stderr.count("events cannot be written any more") == 1


def run_badly(path: Path, error: BaseException) -> None:
    """A run that says and tells this and that, and ends with an error."""
    with keep_log() as log:
        console.say("before it has a place")
        log.open(path)
        console.say(f"a reply\n2026-01-01T00:00:00.000Z  error     forged \x1b[2J {KEY}")
        warnings.warn("old", stacklevel=1)
        for done in range(1, 6):
            emit("progress", what="asking", done=done, total=5)
            emit("step", loss=0.5)
        emit("epoch", epoch=1, terms={"task": 0.25}, dev=None)
        raise error


def test_a_log_holds_what_was_said_when(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.log"
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="old"):
        run_badly(path, KeyboardInterrupt("SIGTERM"))
    lines = path.read_text().splitlines()
    moments = [re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  ", line) for line in lines]
    assert [line for line, moment in zip(lines, moments, strict=True) if moment is None] == [
        "    2026-01-01T00:00:00.000Z  error     forged \\x1b[2J [redacted]"
    ]
    said = [line[moment.end() :] for line, moment in zip(lines, moments, strict=True) if moment is not None]
    assert re.fullmatch(r"begins    harvest-distill \S+, Python \S+, process \d+", said[0])
    assert said[1:] == [
        *("notice    before it has a place", "notice    a reply", "warning   UserWarning: old"),
        *("progress  what asking, done 1, total 5", "progress  what asking, done 5, total 5"),
        *("epoch     epoch 1, task 0.25", "error     interrupted (SIGTERM)"),
    ]
    with pytest.raises(ZeroDivisionError), pytest.warns(UserWarning, match="old"):
        run_badly(path, ZeroDivisionError("a defect"))
    assert path.read_text().startswith("\n".join(lines))
    assert "Traceback (most recent call last)" in path.read_text()
    with keep_log() as log:
        log.open(path, anew=True)
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("place", ["folder", "link", "pipe", "under a file", "full"])
def test_a_log_that_cannot_be_written_costs_nothing_but_itself(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "run.log"
    path.parent.mkdir()
    if place == "folder":
        path.mkdir()
    elif place == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif place == "pipe":
        os.mkfifo(path)
    elif place == "under a file":
        path.parent.rmdir()
        path.parent.touch()
    with keep_log() as log, limit_file_size(100 if place == "full" else 1 << 30):
        log.open(path)
        for number in range(5):
            console.say(f"row {number} " + "x" * 50)
    said = capsys.readouterr().err
    assert said.count("the run goes on without it") == 1
    assert all(f"row {number} " in said for number in range(5)), "the person is told all the same"
    assert not (tmp_path / "elsewhere").exists()
