"""Whole harvests by a batch route: what they keep, cost and say, and what a later run makes of them."""

import json
from pathlib import Path
from threading import Thread
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.asking.forecast import describe_forecast
from harvest.asking.interrupt import Interrupt
from harvest.cli import app
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, plan_harvest, run_harvest
from harvest.looking.reparse import reparse
from harvest.looking.status import read_status
from shared.errors import UsageError
from shared.shards import verify_shards
from tests.harvest.batch_server import BatchServer

ROWS = 40
USUAL = (40 * 1.0 + 1 * 1.0) / 1e6  # US dollars a row, by the ordinary route
FOLDER = Path("out/teacher=fault")


@pytest.fixture(autouse=True)
def _texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"review number {i}", "label": ("negative", "positive")[i % 2]} for i in range(ROWS)]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def choose(server: BatchServer, **options: Any) -> HarvestConfig:
    known = {
        **{"endpoint": server.url, "model": "fault", "dialect": "openai", "batch": True, "job_rows": 16},
        **{"poll": 0.01, "price_in": 1.0, "price_out": 1.0},
    }
    words = ("negative", "positive")
    task = TaskChoice("texts.jsonl", text_column="text", label_column="label", labels=words, label_words=words)
    return HarvestConfig(task, TeacherChoice("endpoint", options=known | options), out=Path("out"))


def run(server: BatchServer, **options: Any) -> Report:
    return run_harvest(choose(server, **options))


def test_rows_of_jobs_are_those_of_the_ordinary_route_for_half_the_price() -> None:
    with BatchServer() as server:
        forecast = plan_harvest(choose(server)).forecast
        assert forecast is not None
        assert forecast.cost_usd is not None
        usual = plan_harvest(choose(server, batch=False)).forecast
        assert usual is not None
        assert usual.cost_usd is not None
        assert forecast.cost_usd.likely == pytest.approx(usual.cost_usd.likely / 2)
        said = "\n".join(describe_forecast(forecast))
        assert f"without --batch ${usual.cost_usd.likely:.4f}" in said
        assert "up to 24 hours" in said
        report = run(server)
        assert (report.asked, report.failed, report.left) == (ROWS, 0, 0)
        # The probe is an ordinary request.
        assert report.cost_usd == pytest.approx(USUAL + (ROWS - 1) * USUAL / 2)
        assert server.count.calls["chat"] == 1
        assert server.count.largest == 16
        assert run(server, batch=False).asked == 0
        assert server.count.calls["chat"] == 1
    rows = pl.read_parquet("out/**/*.parquet")
    assert rows.height == ROWS
    assert set(server.count.answered) <= set(rows["request_key"])
    assert rows["label_logprobs"].null_count() == 0
    assert verify_shards(Path("out")).ok
    assert reparse(Path("out")).changed == 0
    assert not read_status(Path("out"))["teachers"][0]["jobs"]  # all of them were collected, and removed


def test_jobs_are_submitted_only_as_far_as_the_cap_goes() -> None:
    cap = 0.0005  # of which a request may take about a hundred microdollars
    with BatchServer() as server:
        report = run(server, scoring="top_logprobs", max_cost=cap)
        submitted = sum(server.count.answered.values())
    assert report.stopped is not None
    assert "--max-cost" in report.stopped
    assert 0 < submitted == report.asked < ROWS
    assert report.cost_usd is not None
    assert report.cost_usd < cap


def test_a_run_that_is_left_is_taken_up_again_by_the_next() -> None:
    interrupt = Interrupt()
    with BatchServer(looks=10**9) as server:
        leaving = Thread(target=server.wait_for_jobs, args=(3, interrupt.request))
        leaving.start()
        with pytest.raises(KeyboardInterrupt):
            run_harvest(choose(server, scoring="top_logprobs"), interrupt=interrupt)
        leaving.join()
        (teacher,) = read_status(Path("out"))["teachers"]
        assert [job["requests"] for job in teacher["jobs"]] == [16, 16, 8]
        assert {job["step"] for job in teacher["jobs"]} == {"created"}
        assert teacher["in_flight"] == 0
        said = CliRunner().invoke(app, ["status", "out"])
        assert "a job of 16 requests" in said.output
        assert "at the provider, as batch_1" in said.output
        for job in server.jobs.values():
            job.looks = 1
        report = run(server, scoring="top_logprobs")
        assert (report.asked, report.left, server.count.jobs) == (ROWS, 0, 3)
        assert not server.count.doubled


def test_what_has_no_batch_route_is_refused_before_anything_is_sent() -> None:
    with BatchServer() as server:
        with pytest.raises(UsageError, match="--batch needs a provider's batch route"):
            run(server, dialect="auto")
        with pytest.raises(UsageError, match="leave --batch out of this plan"):
            plan_harvest(choose(server), probe=2)
        assert not server.count.calls
