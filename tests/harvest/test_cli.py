"""The `harvest` command, end to end, against a chat endpoint on loopback that nothing happens to."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.cli import app
from harvest.rendering import Layout, render
from tests.harvest.fault_server import FaultServer

ENDPOINT = ("--teacher", "endpoint", "--task", "rte", "--endpoint", "http://h/v1", "--model", "m")
TEXTS = [f"a film that is number {i}" for i in range(40)]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "films.jsonl"
    rows = [{"review": text, "verdict": ("negative", "positive")[i % 2]} for i, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(command: str, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [command, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def flags(server: FaultServer, *more: str) -> list[str]:
    return [
        *("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
        *("--scoring", "top_logprobs", "--task", "films.jsonl", "--text-column", "review"),
        *("--label-column", "verdict", "--label-words", "negative,positive", *more),
    ]


def test_what_a_run_says_at_its_end(server: FaultServer, texts: Path) -> None:
    def say(command: str, *more: str) -> str:
        return " ".join(CliRunner().invoke(app, [command, *flags(server, *more)]).stdout.split())

    assert "40 rows planned, 0 kept before to ask: 40" in say("plan")
    assert "--limit" not in say("plan", "--limit", "train=2")
    assert re.search(r"--limit 2 is of each split: train 2, validation [12], test [12] ", say("plan", "--limit", "2"))
    stopped = say("run", "--max-requests", "10")
    assert "asked 10, failed 0" in stopped
    assert "left to ask: 30 " in stopped
    done = say("run")
    assert "40 rows planned, 10 kept before (10 ok) asked 30, failed 0" in done
    assert "nothing is left to ask" in done
    assert done.endswith("next: distill run --shards data/films/")
    assert "next:" not in stopped


def test_a_harvest_from_plan_to_rows(server: FaultServer, texts: Path) -> None:
    asked_before = sum(server.count.attempts.values())
    plan = run("plan", *flags(server))
    assert (plan["rows"], plan["kept"], plan["to_ask"], plan["asked"]) == (40, 0, 40, 0)
    assert not Path("data").exists()
    assert sum(server.count.attempts.values()) == asked_before

    report = run("run", *flags(server))
    assert (report["rows"], report["asked"], report["failed"]) == (40, 40, 0)
    again = run("run", *flags(server))
    assert (again["kept"], again["asked"]) == (40, 0)
    assert run("plan", *flags(server))["to_ask"] == 0
    assert sum(server.count.attempts.values()) == asked_before + 40

    rows = pl.read_parquet("data/films/teacher=m/**/*.parquet")
    assert sorted(rows["text"]) == sorted(TEXTS)
    assert set(rows["status"]) == {"ok"}
    mass = rows["label_logprobs"].list.eval(pl.element().exp()).list.sum() + rows["residual_mass"]
    assert mass.to_list() == pytest.approx([1.0] * 40, abs=1e-5)

    status = run("status", "data")
    assert (status["rows"], status["kept"], status["failed"]) == (40, 40, 0)
    (teacher,) = status["teachers"]
    assert teacher["in_flight"] == 0
    assert set(teacher["splits"]) == {"train", "validation", "test"}
    verification = run("verify", "data/films")
    assert verification == {"ok": True, "rows": 40, "shards": 3, "problems": []}
    card = Path("data/films/README.md").read_text()
    assert "    path: teacher=m/split=train/*.parquet\n" in card


def test_a_second_model_has_a_folder_of_its_own_and_an_older_one_is_gone_on_with(
    server: FaultServer, texts: Path
) -> None:
    first = run("run", *flags(server, "--limit", "8", "--name", "endpoint"))  # as older versions named it
    again = run("run", *flags(server, "--limit", "9"))
    assert (again["folder"], again["kept"]) == (first["folder"], first["rows"])
    assert again["asked"] == again["rows"] - first["rows"]
    second = run("run", *flags(server, "--limit", "8", "--model", "org/b:7b"))
    assert (second["folder"], second["asked"]) == ("data/films/teacher=b-7b", second["rows"])
    refused = CliRunner().invoke(app, ["run", *flags(server, "--model", "b:7b", "--question", "Is it good?")])
    assert (refused.exit_code, "--name" in refused.output) == (1, True)


def test_a_task_of_ones_own_is_checked_and_then_asked(server: FaultServer, texts: Path) -> None:
    words = "label_column: verdict\nlabel_words: [positive, negative]\nlabels: [positive, negative]\n"
    Path("mine.yaml").write_text(f"source: films.jsonl\ntext_column: review\n{words}question: Is it good?\n")
    described = run("tasks", "mine.yaml")
    assert described["prompt"].startswith("Is it good?\n\n")
    assert described["answer"] in ("positive", "negative")
    shown = CliRunner().invoke(app, ["tasks", "mine.yaml"]).stdout
    assert all(line in shown for line in (f"  | {described['prompt'].splitlines()[-1]}\n", *described["notes"]))
    assert not Path("data").exists()
    asked = flags(server)[: flags(server).index("--task")]
    assert run("run", *asked, "--task", "mine.yaml")["folder"] == "data/mine/teacher=m"


def test_a_file_is_checked_with_the_options_that_its_refusal_names(texts: Path) -> None:
    Path("stars.csv").write_text("film,stars\nfine,good\npoor,bad\n")
    for given, advised in (((), "--text-column"), (("--text-column", "film"), "--label-column")):
        refused = CliRunner().invoke(app, ["tasks", "stars.csv", *given])
        assert (refused.exit_code, advised in refused.output) == (2, True), refused.output
    described = run("tasks", "stars.csv", "--text-column", "film", "--label-column", "stars", "--question", "Is it?")
    assert (described["labels"], described["question"]) == (["bad", "good"], "Is it?")
    listed = CliRunner().invoke(app, ["tasks", "--label-column", "stars"])
    assert (listed.exit_code, "harvest tasks FILE" in listed.output) == (2, True)


def test_tables_for_a_person(server: FaultServer, texts: Path) -> None:
    run("run", *flags(server))
    runner = CliRunner()
    status = runner.invoke(app, ["status"])
    assert status.exit_code == 0
    assert "train" in status.stdout
    Path("data/films/teacher=begun/journal").mkdir(parents=True)
    assert "data/films/teacher=begun: nothing is kept there" in runner.invoke(app, ["status"]).stdout
    shown = runner.invoke(app, ["show", "data/films", "--rows", "2"])
    assert shown.exit_code == 0
    assert shown.stdout.count("status: ok") == 2
    assert "(no label)" in shown.stdout
    pictures = runner.invoke(app, ["show", "data/films", "--images", "pictures"])
    assert pictures.exit_code == 2
    assert "saw no pictures" in pictures.output


@pytest.mark.parametrize("draw", ["fields", "all"])
def test_the_picture_that_the_teacher_saw_is_drawn_again(server: FaultServer, texts: Path, draw: str) -> None:
    run("run", *flags(server, "--draw", draw, "--size", "336x336", "--question", "Is it good?"))
    shown = CliRunner().invoke(app, ["show", "data/films", "--rows", "1", "--images", "pictures"])
    assert shown.exit_code == 0, shown.output
    (picture,) = Path("pictures").iterdir()
    assert "not the bytes" not in shown.output
    rows = pl.read_parquet("data/films/teacher=m/split=train/*.parquet")
    row = rows.filter(pl.col("sample_id") == picture.stem.rsplit("-", 1)[0]).row(0, named=True)
    drawn = row["text"] if draw == "fields" else f"Is it good?\n\n{row['text']}"
    (page,) = render(drawn, Layout(336, 336))
    assert picture.read_bytes() == page.png
    assert row["image_sha256"] == [page.sha256]


def test_a_damaged_folder_fails_verification(server: FaultServer, texts: Path) -> None:
    run("run", *flags(server))
    (shard,) = Path("data/films/teacher=m/split=train").glob("*.parquet")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    result = CliRunner().invoke(app, ["verify", "data/films", "--json"])
    assert result.exit_code == 1
    assert any(shard.name in problem for problem in json.loads(result.stdout)["problems"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "endpoin", "--task", "rte"], "did you mean endpoint?"),
        (["--teacher", "endpoint", "--task", "rte"], "Missing option '--endpoint'"),
        (["--teacher", "reader", "--task", "rte", "--rpm", "3"], "the teacher reader has no option --rpm"),
        (["--teacher", "reader", "--task", "rte", "--limit", "many"], "--limit many: give a number"),
        (["--teacher", "reader", "--task", "rte", "--worker", "3"], "--worker 3: give K/N"),
        (["--teacher", "reader", "--task", "rte", "--retry", "ok"], "--retry ok: it can be truncated"),
        (["--teacher", "reader", "--task", "rte", "--size", "big"], "--size big: give WIDTHxHEIGHT"),
        ([*ENDPOINT, "--draw", "some"], "'some' is not one of 'fields',"),
        ([*ENDPOINT, "--body", "seed=1"], "--body seed=1: this is not JSON"),
        ([*ENDPOINT, "--body", "[1]"], "--body [1]: give a JSON object"),
        ([*ENDPOINT, "--body", '{"stream": true}'], "--body cannot set stream"),
        ([*ENDPOINT, "--concurrency", "0"], "--concurrency is 0; it must be at least 1"),
        (["--teacher", "reader", "--task", "rte", "--rpm", "3"], "endpoint has one"),
        (["--teacher", "reader", "--task", "rte", "--sise", "3x3"], "(did you mean --size?)"),
        (["--task", "rte", "--rpm", "3"], "no --teacher was named"),
        (["--task", "rte"], "Missing option '--teacher'"),
        (["--teacher", "reader", "--task", "rtte"], "did you mean rte?"),
        (["--teacher", "reader", "--task", "films.jsonl"], "name the column of films.jsonl"),
    ],
)
def test_wrong_usage_is_refused_by_name(texts: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_an_unknown_split_is_refused(server: FaultServer, texts: Path) -> None:
    result = CliRunner().invoke(app, ["run", *flags(server, "--ask", "dev")])
    assert result.exit_code == 2
    assert "films has no split 'dev'" in " ".join(result.output.split())


def test_another_recipe_is_refused_and_another_name_is_the_way(server: FaultServer, texts: Path) -> None:
    run("run", *flags(server))
    other = flags(server, "--question", "Good or bad? Answer negative or positive.")
    result = CliRunner().invoke(app, ["run", *other])
    assert result.exit_code == 1
    assert "question" in result.output
    assert "--name" in result.output
    assert run("run", *other, "--name", "second")["asked"] == 40
    assert {teacher["teacher"] for teacher in run("status")["teachers"]} == {"m", "second"}


def test_what_is_asked_and_for_how_long_is_said_by_flags(server: FaultServer, texts: Path) -> None:
    more = ("--body", '{"seed": 7, "temperature": null}', "--keep-topk", "--scoring", "choice")
    waits = ("--connect-timeout", "3", "--body-timeout", "3", "--patience", "3")
    run("run", *flags(server, *more, *waits, "--split", "train", "--limit", "2"))
    (asked, _) = list(server.requests)[-2:]
    assert asked.body["top_logprobs"] == 20  # kept, though the scoring needs none
    assert asked.body["seed"] == 7
    assert "temperature" not in asked.body
