"""A new parser reads what was paid for again: nothing is asked, nothing is lost, whenever it is killed."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.chat.scoring import LabelWords
from harvest.cli import app
from harvest.looking.reparse import reparse
from shared.errors import LockedError, UsageError
from shared.example import Example
from shared.schema import Answer, Row, Status, sum_costs
from shared.shards import Claim, Manifest, TeacherFolder, load_manifest, verify_shards
from tests.harvest.fault_server import ANSWERED, FaultServer, make_reply, spread_logprobs
from tests.harvest.teachers.endpoint.endpoint_runs import TASK, make_teacher

ROWS = 60
READ_BEFORE = ("status", "reply", "label_logprobs", "residual_mass", "error")


@pytest.fixture(autouse=True)
def _texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"review": f"film {i}", "verdict": ("negative", "positive")[i % 2]} for i in range(ROWS)]
    Path("films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def harvest(server: FaultServer, *more: str) -> None:
    result = CliRunner().invoke(
        app,
        [
            *("run", "--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
            *("--task", "films.jsonl", "--text-column", "review", "--label-column", "verdict"),
            *("--label-words", "negative,positive", "--price-in", "1", "--price-out", "1", "--body-timeout", "1"),
            *("--failure-limit", "1", *more),
        ],
    )
    assert result.exit_code == 0, result.output


def read_rows() -> pl.DataFrame:
    return pl.read_parquet("data/films/**/*.parquet", hive_partitioning=True).sort("split", "sample_id")


def test_a_new_parser_reads_what_was_paid_for_and_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer=lambda asked: make_reply("It is: positive!", {})) as server:
        with monkeypatch.context() as old:
            old.setattr(LabelWords, "match_answer", lambda self, text: None)
            harvest(server, "--scoring", "votes", "--votes", "1")
        before = read_rows()
        assert set(before["status"]) == {"unparsable"}
        asked = sum(server.count.attempts.values())
        shown = CliRunner().invoke(app, ["reparse", "data/films"]).stdout
        assert sum(server.count.attempts.values()) == asked == ROWS
    assert f"{ROWS} replies read again, {ROWS} answers changed" in shown
    assert f"{ROWS} unparsable -> ok" in shown
    assert "asked 0" in shown
    after = read_rows()
    assert set(after["status"]) == {"ok"}
    assert after["label_logprobs"].list.last().to_list() == [0.0] * ROWS
    assert after["error"].null_count() == ROWS
    # The bill, the raw replies and the requests are what they were.
    assert after.drop(READ_BEFORE).equals(before.drop(READ_BEFORE))
    manifest = load_manifest(Path("data/films/teacher=m"))
    assert sum_costs(shard.cost_usd for shard in manifest.shards) == pytest.approx(before["cost_usd"].sum())
    assert manifest.superseded.rows == 0
    assert verify_shards(Path("data/films")).ok
    again = reparse(Path("data/films"))
    assert (again.rows, again.reread, again.changed, again.statuses) == (ROWS, ROWS, 0, {})
    assert load_manifest(Path("data/films/teacher=m")) == manifest


@pytest.mark.parametrize("more", [("--scoring", "top_logprobs", "--keep-topk"), ("--scoring", "votes")])
def test_the_same_parser_changes_nothing_whatever_came_back(more: tuple[str, ...]) -> None:
    """Broken bodies stay broken, and every number is what the columns held."""
    faults = {name: 40 for name in ANSWERED if name not in ("oversized", "drip", "no usage")}
    with FaultServer(faults, seed=8) as server:
        harvest(server, *more)
        assert len(server.count.outcomes) > 8
    before = read_rows()
    broken = before["error"].fill_null("").str.starts_with("answered 200 but").sum()
    assert broken > 0
    result = reparse(Path("data/films"))
    assert (result.rows, result.changed) == (ROWS, 0)
    assert result.reread == ROWS - broken - before["raw"].null_count()
    assert read_rows().equals(before)


def test_rows_that_wait_in_a_journal_are_read_again_too(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, shards=1, unsealed=7)
    assert reparse(folder).changed == 50 + 7


def test_a_teacher_that_nobody_here_knows_has_nothing_to_read_again(tmp_path: Path) -> None:
    recipe = {"teacher": "of another package"}
    manifest = Manifest("t", "other", "classification", ("a",), "accuracy", recipe, "s")
    with TeacherFolder.open(tmp_path, manifest) as folder:
        pass
    with pytest.raises(UsageError, match="'of another package', and without it there is nothing to read again"):
        reparse(folder.path)


def test_a_harvest_that_is_writing_is_not_disturbed(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, shards=2)
    before = load_manifest(folder)
    for worker in ("w0", "w1"):
        with Claim(tmp_path, "endpoint", worker), pytest.raises(LockedError):
            reparse(folder)
    assert load_manifest(folder) == before


def make_old_row(i: int) -> Row:
    """A row whose whole reply an old parser could not read."""
    reply: dict[str, Any] = make_reply("positive", spread_logprobs(0.9))
    answer = Answer(
        Status.UNPARSABLE, raw=json.dumps(reply).encode(), error="the old parser gave up", cost_usd=0.25, attempts=1
    )
    return Row(Example(str(i), f"text {i}", label=i % 2), f"{i:064x}", 0, answer)


def fill_folder(task_folder: Path, shards: int, unsealed: int = 0) -> Path:
    """A folder of shards of 50 rows each, and some rows in the journal."""
    teacher = make_teacher("http://h/v1", replace(TASK, name="films"))
    manifest = Manifest(
        "films", "endpoint", "classification", TASK.labels, "accuracy", json.loads(json.dumps(teacher.recipe())), "s"
    )
    with TeacherFolder.open(task_folder, manifest) as folder:
        for shard in range(shards):
            folder.append("train", [make_old_row(i) for i in range(50 * shard, 50 * shard + 50)])
            folder.seal()
        folder.append("train", [make_old_row(i) for i in range(50 * shards, 50 * shards + unsealed)])
    return folder.path


@pytest.mark.real
def test_killed_at_random_moments_it_loses_nothing_and_ends(tmp_path: Path) -> None:
    source = random.Random(9)
    folder = fill_folder(tmp_path / "data", shards=40)
    command = [sys.executable, "-m", "harvest.cli", "reparse", str(folder), "--json"]
    seen = set()
    for _ in range(8):
        before = load_manifest(folder)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while load_manifest(folder) == before and child.poll() is None:
            time.sleep(0.005)
        time.sleep(source.uniform(0, 0.01))
        child.send_signal(signal.SIGKILL)
        child.wait()
        manifest = load_manifest(folder)
        rows = pl.concat([pl.read_parquet(folder / shard.path) for shard in manifest.shards])
        assert sorted(map(int, rows["sample_id"])) == list(range(2000))
        assert rows["raw"].null_count() == 0
        assert sum_costs(shard.cost_usd for shard in manifest.shards) == rows["cost_usd"].sum() == 500
        statuses = Counter(rows["status"].to_list())
        assert set(statuses) <= {"ok", "unparsable"}
        assert (rows["label_logprobs"].is_null() == (rows["status"] == "unparsable")).all()
        seen.add(statuses["ok"])
        if not statuses["unparsable"]:
            break
    assert len(seen - {0, 2000}) >= 2  # it was indeed in the middle, and went on from there
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"] == 2000
    left = pl.read_parquet(f"{folder}/**/*.parquet")
    assert left.height == 2000
    assert set(left["status"]) == {"ok"}
    verification = verify_shards(folder)
    assert verification.ok, verification.problems
