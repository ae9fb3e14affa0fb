"""What a plan says a run will take: from the texts alone, and from what kept rows took."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.asking.forecast import Measurement, describe_forecast, make_forecast, student_t
from harvest.asking.plan import Action, Plan
from harvest.cli import app
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import plan_harvest
from harvest.rendering import Layout, render
from harvest.teachers.base import Estimate
from harvest.teachers.registry import ENTRIES, TeacherEntry
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs
from tests.harvest.scripted_teacher import ScriptedTeacher

ROWS = 300


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Texts of 1 to 60 words."""
    monkeypatch.chdir(tmp_path)
    source = random.Random(1)
    frame = pl.DataFrame(
        {
            "review": [f"film {i} " + "word " * source.randint(0, 58) for i in range(ROWS)],
            "verdict": ["negative", "positive"] * (ROWS // 2),
        }
    )
    frame.write_csv("films.csv")
    return frame


def count_words(asked: Asked) -> int:
    return len(asked.body["messages"][0]["content"].split())


def answer(asked: Asked) -> dict[str, Any]:
    """A server whose tokens are words, and 7 more a prompt."""
    return make_reply("positive", spread_logprobs(0.7), prompt_tokens=count_words(asked) + 7, completion_tokens=2)


def flags(server: FaultServer, *more: str) -> list[str]:
    return [
        *("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
        *("--scoring", "top_logprobs", "--task", "films.csv", "--text-column", "review", "--label-column", "verdict"),
        *("--label-words", "negative,positive", *more),
    ]


def plan(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


PRICES = ("--price-in", "100", "--price-out", "200")


def test_a_plan_sends_nothing_and_estimates_from_the_texts(texts: pl.DataFrame) -> None:
    with FaultServer(answer=answer) as server:
        report = plan(*flags(server, *PRICES, "--rpm", "60"))
        assert not server.requests
    forecast = report["forecast"]
    assert (report["to_ask"], forecast["requests"], forecast["measured_rows"]) == (ROWS, ROWS, 0)
    characters = texts["review"].str.len_bytes().sum()
    assert characters / 4 < forecast["input_tokens"]["likely"] < characters / 4 + 70 * ROWS
    assert forecast["input_tokens"]["low"] is None
    assert forecast["image_tokens"]["likely"] == 0
    assert forecast["output_tokens"]["likely"] == 8 * ROWS
    expected = forecast["input_tokens"]["likely"] * 1e-4 + forecast["output_tokens"]["likely"] * 2e-4
    assert forecast["cost_usd"]["likely"] == pytest.approx(expected)
    assert forecast["minutes"] == pytest.approx(ROWS / 60)
    assert not Path("data").exists()


def test_no_price_and_no_pace_are_said_to_be_unknown(texts: pl.DataFrame) -> None:
    with FaultServer() as server:
        forecast = plan(*flags(server))["forecast"]
        assert (forecast["cost_usd"], forecast["price"], forecast["minutes"]) == (None, None, None)
        shown = CliRunner().invoke(app, ["plan", *flags(server)]).stdout
    assert "no price is known (--price-in, --price-out)" in shown
    assert "--probe 5 measures" in shown


def test_pictures_have_tokens_of_their_own(texts: pl.DataFrame) -> None:
    with FaultServer() as server:
        forecast = plan(*flags(server, "--draw", "fields", "--size", "336x336"))["forecast"]
    assert forecast["image_tokens"]["likely"] == ROWS * 24 * 24  # a patch of 14 pixels each


def test_a_probe_asks_for_real_keeps_the_rows_and_its_range_holds_the_truth(texts: pl.DataFrame) -> None:
    with FaultServer(answer=answer, price_in=1e-4, price_out=2e-4) as server:
        report = plan(*flags(server, *PRICES), "--probe", "5")
        assert sum(server.count.attempts.values()) == report["asked"] == 5
        assert report["cost_usd"] == pytest.approx(server.count.billed_usd)
        rows = pl.read_parquet("data/films/**/*.parquet")
        assert rows.height == 5
        numbers = rows["sample_id"].str.extract(r"(\d+)$").cast(pl.Int64).sort()
        assert numbers.max() - numbers.min() > ROWS // 2  # type: ignore[operator] # spread over the task
        assert (report["kept"], report["kept_statuses"], report["to_ask"]) == (5, {"ok": 5}, ROWS - 5)
        forecast = report["forecast"]
        assert forecast["measured_rows"] == 5

        again = plan(*flags(server, *PRICES), "--probe", "20")  # other rows
        assert sum(server.count.attempts.values()) == 25
        billed = server.count.billed_usd
        done = CliRunner().invoke(app, ["run", *flags(server, *PRICES), "--json"])
        assert json.loads(done.stdout)["asked"] == ROWS - 25
        assert set(server.count.attempts.values()) == {1}
        truth = {"cost_usd": server.count.billed_usd - billed, "output_tokens": 2 * (ROWS - 25)}
        left = pl.read_parquet("data/films/**/*.parquet").join(rows, on="sample_id", how="anti")
        assert forecast["input_tokens"]["low"] < left["prompt_tokens"].sum() < forecast["input_tokens"]["high"]
        for name, value in truth.items():
            assert again["forecast"][name]["low"] <= value * 1.000001, name
            assert value <= again["forecast"][name]["high"] * 1.000001, name
        # More rows, a narrower range.
        widths = [f["cost_usd"]["high"] - f["cost_usd"]["low"] for f in (forecast, again["forecast"])]
        assert widths[1] < widths[0]

        nothing = CliRunner().invoke(app, ["plan", *flags(server, *PRICES)]).stdout
        assert "nothing is left to ask: a run would ask 0 rows" in nothing
        assert f"{ROWS} kept before ({ROWS} ok)" in nothing
        assert plan(*flags(server, *PRICES), "--probe", "5")["asked"] == 0


def test_a_probe_says_which_kept_rows_it_brought_to_the_file(texts: pl.DataFrame) -> None:
    with FaultServer(answer=answer) as server:
        plan(*flags(server), "--probe", "3")
        texts.with_columns(verdict=pl.col("verdict").reverse()).write_csv("films.csv")
        assert plan(*flags(server), "--probe", "1")["changed"]["relabelled"] == 3
        assert plan(*flags(server))["changed"]["relabelled"] == 0


def test_the_probe_of_an_endpoint_that_is_not_known_yet_is_one_of_its_rows(texts: pl.DataFrame) -> None:
    with FaultServer(answer=answer) as server:
        report = plan(*flags(server, "--scoring", "auto"), "--probe", "3")
        assert sum(server.count.attempts.values()) == report["asked"] == report["kept"] == 3


def test_a_probe_stops_at_the_cap(texts: pl.DataFrame) -> None:
    with FaultServer(answer=answer) as server:
        result = CliRunner().invoke(app, ["plan", *flags(server), "--probe", "5", "--max-requests", "2", "--json"])
        assert result.exit_code == 1
        report = json.loads(result.stdout)
        assert (report["asked"], report["kept"]) == (2, 2)
        assert "--max-requests 2" in report["stopped"]


def test_what_an_endpoint_says_it_bills_is_believed_without_a_price(texts: pl.DataFrame) -> None:
    def bill(asked: Asked) -> dict[str, Any]:
        reply = answer(asked)
        reply["usage"]["cost"] = 0.01
        return reply

    with FaultServer(answer=bill) as server:
        forecast = plan(*flags(server), "--probe", "4")["forecast"]
    assert forecast["cost_usd"]["likely"] == pytest.approx(0.01 * (ROWS - 4))


def make_plan(rows: int, **estimate: Any) -> Plan:
    return Plan({"train": np.full((1, rows), Action.ASK, np.uint8)}, {"train": rows}, {}, None, Estimate(**estimate))


def make_measurement(guessed: np.ndarray, prompt: np.ndarray) -> Measurement:
    nothing = np.full(len(prompt), np.nan)
    latency = np.full(len(prompt), 500.0)
    return Measurement(prompt, nothing, 0 * prompt, latency, guessed, 0 * prompt)


def test_ranges_hold_the_truth_in_about_19_of_20_cases() -> None:
    """Samples of five of a population whose tokens are not simply a multiple of what is guessed."""
    source = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        guessed = source.integers(20, 120, 1005).astype(float)
        tokens = 15 + 1.2 * guessed + source.normal(0, 8, 1005)
        wanted = make_plan(1000, input_tokens=guessed[5:].sum())
        amount = make_forecast(wanted, ScriptedTeacher(), make_measurement(guessed[:5], tokens[:5])).input_tokens
        assert amount.low is not None
        assert amount.high is not None
        held += amount.low <= tokens[5:].sum() <= amount.high
    assert 0.9 < held / 400 < 0.99


def test_one_row_gives_no_range() -> None:
    one = make_measurement(np.array([10.0]), np.array([30.0]))
    amount = make_forecast(make_plan(10, input_tokens=100.0), ScriptedTeacher(), one).input_tokens
    assert (amount.likely, amount.low, amount.high) == (300.0, None, None)


def test_a_teacher_that_runs_here_is_free_and_timed_by_its_rows() -> None:
    rows = make_measurement(np.array([10.0, 10.0]), np.array([np.nan, np.nan]))
    forecast = make_forecast(make_plan(240), ScriptedTeacher(), rows)
    assert forecast.minutes == pytest.approx(240 * 0.5 / 60)
    assert forecast.cost_usd is not None
    assert forecast.cost_usd.likely == 0
    assert make_forecast(make_plan(240), ScriptedTeacher(), None).minutes is None
    side_by_side = make_forecast(make_plan(240), ScriptedTeacher(), rows, replicas=4)
    assert side_by_side.minutes == pytest.approx(60 * 0.5 / 60)
    assert "about 0.5, if the pace holds; 4 replicas side by side" in "\n".join(describe_forecast(side_by_side))


@pytest.mark.parametrize(("degrees", "value"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (60, 2.0)])
def test_quantiles_are_those_of_the_tables(degrees: int, value: float) -> None:
    assert student_t(degrees) == pytest.approx(value, rel=2e-3)


@pytest.mark.parametrize("words", [5, 100, 400, 1500])
def test_pages_are_guessed_nearly(words: int) -> None:
    source = random.Random(words)
    text = " ".join(["ab", "cde", "fghi", "jklmn"][source.randrange(4)] for _ in range(words))
    layout = Layout(336, 336)
    pages = len(render(text, layout))
    assert abs(layout.guess_pages(text) - pages) <= max(1, pages // 4)
    assert (layout.guess_pages(text) == 1) == (pages == 1)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_teacher_keeps_the_protocol(entry: TeacherEntry) -> None:
    factory, _ = entry.load()
    for name in ("recipe", "content", "estimate", "answer"):
        assert callable(getattr(factory, name)), name


def test_the_reader_is_free(texts: pl.DataFrame) -> None:
    task = TaskChoice("films.csv", text_column="review", label_column="verdict")
    forecast = plan_harvest(HarvestConfig(task, TeacherChoice("reader"))).forecast
    assert forecast is not None
    assert forecast.cost_usd is not None
    assert (forecast.requests, forecast.cost_usd.likely, forecast.price) == (ROWS, 0.0, None)
    assert forecast.bytes.likely > ROWS * 2 * 384  # float16 vectors of 384 dimensions or more
