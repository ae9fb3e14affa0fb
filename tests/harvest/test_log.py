"""The log of a harvest: beside the teacher's folder, where nothing that reads or counts rows is disturbed."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harvest.cli import app
from shared.shards import verify_shards
from tests.harvest.fault_server import FaultServer
from tests.harvest.teachers.endpoint.endpoint_runs import CANARY, check_no_file_shows


def ask(server: FaultServer, *more: str) -> tuple[int, str, list[dict[str, object]]]:
    """The exit code of a harvest, its --json and its events."""
    flags = [
        "--teacher",
        "endpoint",
        "--name",
        "t",
        "--endpoint",
        server.url,
        "--model",
        "fault",
        "--dialect",
        "openai",
    ]
    flags += ["--scoring", "top_logprobs", "--task", "films.csv", "--label-words", "negative,positive", *more]
    done = CliRunner().invoke(app, ["run", *flags, "--json", "--log-json", "-"])
    return done.exit_code, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


def test_a_harvest_keeps_a_log_and_tells_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    lines = [f"film {number},{'bad' if number % 2 else 'good'}" for number in range(40)]
    Path("films.csv").write_text("\n".join(["text,label", *lines, ""]))
    log = Path("data/films/logs/t.log")
    with FaultServer(seed=0) as server:
        code, out, events = ask(server, "--limit", "train=10", "--price-in", "1", "--price-out", "1")
        assert code == 0, events
        report = json.loads(out)
        told = {event["event"]: event for event in events}
        assert told.keys() == {"notice", "started", "progress", "finished"}
        for name in ("asked", "kept", "failed"):
            assert told["progress"][name] == told["finished"][name] == report[name]
        assert told["progress"]["cost_usd"] == pytest.approx(report["cost_usd"])
        written = log.read_text()
        assert re.search(r"Z  finished  rows \d+, asked \d+, ", written)

        log.unlink()
        log.mkdir()  # where no log can be, nothing is lost
        code, out, events = ask(server, "--limit", "train=12")
        assert (code, json.loads(out)["asked"], json.loads(out)["failed"]) == (0, 2, 0)
        assert sum("the run goes on without it" in str(event.get("text")) for event in events) == 1
        log.rmdir()
        code, _, events = ask(server, "--limit", "train=12", "--top-logprobs", "3")
        assert (code, events[-1]["event"], events[-1]["exit_code"]) == (1, "error", 1)
        assert str(events[-1]["text"])[:40] in log.read_text(), "a refusal of the folder stands there, too"
    verification = verify_shards(Path("data/films"))
    assert (verification.ok, verification.rows) == (True, report["rows"] + 2)
    check_no_file_shows(CANARY, tmp_path)
