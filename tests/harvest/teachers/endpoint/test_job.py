"""The first run against an endpoint: who may probe it, and what becomes of a probe that was paid for."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from harvest.cli import app
from harvest.looking.status import read_status
from shared.shards import Claim, load_manifest, verify_shards
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs

ROWS = 40


@pytest.fixture(autouse=True)
def _texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"review": f"film {i}", "verdict": ("negative", "positive")[i % 2]} for i in range(ROWS)]
    Path("films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def flags(server: FaultServer, *more: str) -> list[str]:
    return [
        *("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--task", "films.jsonl"),
        *("--text-column", "review", "--label-column", "verdict", "--label-words", "negative,positive", *more),
    ]


def run(server: FaultServer, *more: str) -> Result:
    return CliRunner().invoke(app, ["run", *flags(server, *more), "--json"])


def start(server: FaultServer, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "harvest.cli", "run", *flags(server, *more), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def waits_for_a_lock(process: int) -> bool:
    """Whether the kernel holds a process back for a lock that another one has (proc_locks(5))."""
    waiting = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line)
    return any(fields[5] == str(process) for fields in waiting)


def read_rows() -> pl.DataFrame:
    return pl.read_parquet("data/films/teacher=m/**/*.parquet")


def test_what_the_probe_paid_for_is_a_row_and_is_not_asked_again() -> None:
    with FaultServer() as server:
        result = run(server, "--price-in", "1", "--price-out", "1")
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert sum(server.count.attempts.values()) == ROWS
    assert (report["asked"], report["to_ask"], report["kept"]) == (ROWS, ROWS, 0), "no row is counted twice"
    rows = read_rows()
    assert rows.height == ROWS
    assert report["cost_usd"] == pytest.approx(rows["cost_usd"].sum())
    assert load_manifest(Path("data/films/teacher=m")).recipe["scoring"]["mode"] == "top_logprobs"
    (teacher,) = read_status(Path("data"))["teachers"]
    assert teacher["in_flight"] == 0


def test_a_second_writer_is_refused_before_anything_is_paid() -> None:
    with FaultServer() as server, Claim(Path("data/films"), "m", "w0"):
        result = run(server)
        assert result.exit_code == 1
        assert "is being written by process" in result.output
        assert not server.requests
        # A worker of its own share is none.
        assert run(server, "--worker", "2/2").exit_code == 0


def test_what_a_folder_cannot_keep_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as server:
        with monkeypatch.context() as fault:
            fault.setattr(os, "posix_fallocate", refuse)
            full = run(server)
            assert (full.exit_code, len(server.requests)) == (1, 0)
            assert "free disk space" in " ".join(full.output.split())
        assert run(server).exit_code == 0
        other = run(server, "--scoring", "votes")
        assert (other.exit_code, len(server.requests)) == (1, ROWS)
        assert "top_logprobs" in other.output
        assert "votes" in other.output


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_probe_paid_for_is_kept_before_anything_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(text: str) -> None:
        if "label distributions" in text:
            raise BrokenPipeError

    monkeypatch.setattr("harvest.job.say", break_off)
    with FaultServer() as server:
        assert run(server).exit_code != 0
        assert len(server.requests) == read_status(Path("data"))["kept"] == 1


@pytest.mark.real
def test_workers_that_start_together_probe_once() -> None:
    with FaultServer(latency=0.3) as server:
        children = [start(server, "--worker", f"{number}/2") for number in (1, 2)]
        printed = [child.communicate() for child in children]
        assert [child.returncode for child in children] == [0, 0], printed
        assert sum(json.loads(out)["asked"] for out, _ in printed) == ROWS
        assert set(server.count.attempts.values()) == {1}
    assert read_rows().height == ROWS
    assert verify_shards(Path("data/films")).ok


@pytest.mark.real
def test_a_worker_that_knows_the_recipe_waits_for_the_row_of_another_ones_probe() -> None:
    with FaultServer() as server:
        assert run(server, "--worker", "1/2").exit_code == 0
        asked = len(server.requests)
        with Claim(Path("data/films"), "m", "prober") as claim, claim.hold_recipe():
            child = start(server, "--worker", "2/2")
            while not waits_for_a_lock(child.pid):
                assert child.poll() is None, child.communicate()
                time.sleep(0.05)
            assert len(server.requests) == asked
        out, _ = child.communicate()
        assert child.returncode == 0
        assert asked + json.loads(out)["asked"] == len(server.requests) == ROWS


@pytest.mark.real
def test_many_workers_write_the_card_at_once() -> None:
    with FaultServer() as server:
        assert run(server).exit_code == 0
    write = "from pathlib import Path; from harvest.looking.card import write_card; folder = Path('data/films')"
    write += "\nfor _ in range(100): write_card(folder)"
    children = [subprocess.Popen([sys.executable, "-c", write]) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert "## m\n" in Path("data/films/README.md").read_text()
    assert not list(Path("data/films").glob(".*.tmp"))


def test_a_probe_that_was_killed_is_told_as_in_flight_and_asked_with_the_same_key() -> None:
    with FaultServer(latency=1.0) as server:
        child = start(server)
        while not server.requests and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        status = read_status(Path("data"))
        assert [teacher["in_flight"] for teacher in status["teachers"]] == [1]
        assert status["kept"] == 0
        told = CliRunner().invoke(app, ["status"])
        assert "1 requests had left" in told.stdout
        assert run(server).exit_code == 0
        assert sum(server.count.attempts.values()) == ROWS + 1
        (again,) = [key for key, attempts in server.count.attempts.items() if attempts == 2]
        assert again in set(read_rows()["request_key"])
        assert read_status(Path("data"))["teachers"][0]["in_flight"] == 0


def test_an_endpoint_that_is_refused_leaves_nothing_in_flight() -> None:
    def answer(asked: Asked) -> dict[str, Any]:
        reply = make_reply("It is.", spread_logprobs(0.7))
        del reply["choices"][0]["logprobs"]
        return reply

    with FaultServer(answer=answer) as server:
        result = run(server, "--scoring", "top_logprobs")
        assert result.exit_code == 1
        assert "no log-probabilities came back" in " ".join(result.output.split())
        assert server.requests
    told = CliRunner().invoke(app, ["status"])
    assert told.exit_code == 1
    assert "holds no teacher's answers" in " ".join(told.output.split())


def test_a_row_that_cannot_be_asked_is_not_the_one_to_probe_with() -> None:
    texts = Path("films.jsonl").read_text().splitlines()
    rows = [json.loads(text) for text in texts]
    for row in rows[: ROWS // 2]:
        row["review"] = "\u0627\u0644\u0641\u064a\u0644\u0645"  # Arabic: it cannot be drawn
    Path("films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(asked: Asked) -> dict[str, Any]:
        has_picture = isinstance(asked.body["messages"][0]["content"], list)
        return make_reply("positive", spread_logprobs(0.7), prompt_tokens=300 if has_picture else 40)

    with FaultServer(answer=answer) as server:
        result = run(server, "--draw", "fields", "--failure-limit", "1")
    assert result.exit_code == 0, result.output
    assert dict(read_rows()["status"].value_counts().iter_rows()) == {"ok": ROWS // 2, "failed": ROWS // 2}


def test_a_run_that_asks_nothing_cannot_find_out_what_the_endpoint_gives() -> None:
    with FaultServer() as server:
        result = run(server, "--split", "train", "--ask", "test")
        assert result.exit_code == 2
        assert not server.requests


def test_a_plan_needs_no_key_and_a_run_without_one_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with FaultServer() as server:
        key = ("--api-key-env", "MY_KEY")
        planned = CliRunner().invoke(app, ["plan", *flags(server, *key), "--json"])
        assert planned.exit_code == 0, planned.output
        assert json.loads(planned.stdout)["to_ask"] == ROWS
        for command in (["run"], ["plan", "--probe", "1"]):
            refused = CliRunner().invoke(app, [*command, *flags(server, *key)])
            assert refused.exit_code == 2
            assert "MY_KEY, which is not set" in " ".join(refused.output.split())
        assert not server.requests
    assert not Path("data").exists()


def test_where_nobody_listens_the_probe_says_that_alone() -> None:
    with FaultServer() as server:
        pass
    result = run(server)
    said = " ".join(result.output.split())
    assert result.exit_code == 1
    assert said.endswith("nobody listens there: is the server running, and is that its port?")
    assert said.count("nobody listens") == 1
