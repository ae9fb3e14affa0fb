"""Tasks whose answer is free text: a reply is ok as it is, and rows carry the right texts."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.cli import app
from shared.shards import load_manifest, verify_shards
from tests.harvest.fault_server import Asked, FaultServer, make_reply

ROWS = 12


def write_texts(path: Path, as_lists: bool) -> None:
    right: list[Any] = [[f"summary {i}", f"short {i}"] if as_lists else f"summary {i}" for i in range(ROWS)]
    pl.DataFrame({"article": [f"a long text {i}" for i in range(ROWS)], "summary": right}).write_parquet(path)


def run(command: str, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [command, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("as_lists", [True, False])
def test_free_text_is_kept_as_ok_beside_its_right_texts(
    as_lists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "news.parquet", as_lists)
    with FaultServer(answer=lambda asked: make_reply("In short: nothing new.", {})) as server:
        flags = [
            *("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
            *("--task", "news.parquet", "--text-column", "article", "--target-text-column", "summary"),
            *("--question", "Summarise the text in one sentence."),
        ]
        report = run("run", *flags)
        assert (report["asked"], report["failed"], report["cost_usd"]) == (ROWS, 0, None)
        again = run("run", *flags)
        assert (again["kept"], again["asked"]) == (ROWS, 0)
    rows = pl.read_parquet("data/news/**/*.parquet")
    assert set(rows["status"]) == {"ok"}
    assert set(rows["reply"]) == {"In short: nothing new."}
    assert set(rows["target_text"]) == {f"summary {i}" for i in range(ROWS)}
    if as_lists:
        assert sorted(rows["references"].to_list()) == sorted([f"summary {i}", f"short {i}"] for i in range(ROWS))
    else:
        assert rows["references"].null_count() == ROWS
    assert rows["cost_usd"].null_count() == ROWS
    status = run("status", "data/news")
    assert status["cost_usd"] is None
    assert sum(split["unpriced"] for split in status["teachers"][0]["splits"].values()) == ROWS
    shown = CliRunner().invoke(app, ["status", "data/news"], env={"COLUMNS": "200"}).stdout
    assert "unknown" in shown
    assert "0.0000" not in shown
    assert "unknown |" in Path("data/news/README.md").read_text()
    assert run("reparse", "data/news")["changed"] == 0
    assert verify_shards(Path("data/news")).problems == ()


def test_a_question_without_labels_asks_for_free_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(ROWS)))
    with FaultServer(answer=lambda asked: make_reply("A story.", {})) as server:
        report = run(
            *("run", "--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
            *("--task", "texts.jsonl", "--text-column", "text", "--question", "What is this?"),
        )
        assert (report["asked"], report["failed"]) == (ROWS, 0)
    rows = pl.read_parquet("data/texts/**/*.parquet")
    assert set(rows["status"]) == {"ok"}
    assert rows["target_text"].null_count() == ROWS


def test_an_answer_that_is_cut_is_a_truncated_row_and_no_reason_not_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(ROWS)))
    reply = make_reply("A story of", {})
    reply["choices"][0]["finish_reason"] = "length"
    with FaultServer(answer=lambda asked: reply) as server:
        report = run(
            *("run", "--teacher", "endpoint", "--endpoint", server.url, "--model", "m"),  # the dialect is probed
            *("--task", "texts.jsonl", "--text-column", "text", "--question", "What is this?"),
        )
    assert report["asked"] == ROWS
    rows = pl.read_parquet("data/texts/**/*.parquet")
    assert set(rows["status"]) == {"truncated"}
    assert set(rows["reply"]) == {"A story of"}


CHOICES = [
    {"question": f"Which is {i}?", "options": [f"{i}", f"{i + 1}", "none"][: 2 + i % 2], "y": "0"} for i in range(ROWS)
]
TALKS = [
    {"messages": [{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"It is {i}."}]}
    for i in range(ROWS)
]


@pytest.mark.parametrize(
    ("content", "flags", "asked_for"),
    [
        (
            CHOICES,
            ("--text-column", "question", "--choices-column", "options", "--label-column", "y"),
            "Which choice is right? Answer with it, and nothing else.\n\nWhich is 3?\n\nA. 3\nB. 4\nC. none",
        ),
        (TALKS, ("--messages-column", "messages", "--answer-rule", "number", "--max-reply-tokens", "40"), "Say 3."),
    ],
)
def test_choices_and_conversations_are_asked_and_kept(
    content: list[dict[str, Any]],
    flags: tuple[str, ...],
    asked_for: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    asked: list[str] = []

    def answer(one: Asked) -> dict[str, Any]:
        asked.append(json.dumps(one.body))
        return make_reply("It is 3.", {})

    with FaultServer(answer=answer) as server:
        harvest = [
            *("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
            *("--task", "rows.jsonl", "--draw", "none", *flags),
        ]
        report = run("run", *harvest)
        assert (report["asked"], report["failed"]) == (ROWS, 0)
        again = run("run", *harvest)
        assert (again["kept"], again["asked"]) == (ROWS, 0)
    assert any(json.dumps(asked_for)[1:-1] in one for one in asked)
    rows = {row["sample_id"]: row for row in pl.read_parquet("data/rows/**/*.parquet").to_dicts()}
    third = rows["rows-3"]
    assert third["status"] == "ok"
    manifest = load_manifest(Path("data/rows/teacher=m"))
    if content is CHOICES:
        assert (third["choices"], third["label"], third["messages"]) == (["3", "4", "none"], 0, None)
        assert (manifest.kind, manifest.answer_rule, manifest.labels) == ("choice", "choice", ())
    else:
        assert third["messages"] == [{"role": "user", "content": "Say 3."}]
        assert (third["target_text"], third["choices"]) == ("It is 3.", None)
        assert (manifest.kind, manifest.answer_rule, manifest.max_reply_tokens) == ("generation", "number", 40)
    assert run("reparse", "data/rows")["changed"] == 0
    assert verify_shards(Path("data/rows")).problems == ()


def test_the_known_tasks_are_listed() -> None:
    listed = run("tasks")
    assert listed["arc_easy"]["kind"] == "choice"
    assert listed["arc_easy"]["rows"] == {"train": 2_251, "validation": 570, "test": 2_376}
    assert (listed["singleeq"]["needs_file"], listed["gsm8k"]["answer_rule"]) == (True, "number")
    printed = CliRunner().invoke(app, ["tasks"], env={"COLUMNS": "160"}).stdout
    assert all(name in printed for name in listed)


def test_several_draws_of_a_prompt_are_rows_of_their_own_each_with_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "news.parquet", False)
    with FaultServer(answer=lambda asked: make_reply(f"seed {asked.body['seed']}", {})) as server:
        flags = [
            *("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
            *("--task", "news.parquet", "--text-column", "article", "--target-text-column", "summary"),
            *("--question", "Summarise it.", "--temperature", "0.7", "--top-p", "0.9"),
        ]
        assert run("run", *flags)["asked"] == ROWS
        plan = run("plan", *flags, "--draws", "3")
        assert (plan["rows"], plan["kept"], plan["to_ask"]) == (3 * ROWS, ROWS, 2 * ROWS)
        report = run("run", *flags, "--draws", "3", "--ask", "train")
        train = report["asked"] // 2
        assert report["rows"] == 3 * train + ROWS - train
        assert run("run", *flags, "--draws", "3")["rows"] == 3 * ROWS
        again = run("run", *flags, "--draws", "3")
        assert (again["kept"], again["asked"]) == (3 * ROWS, 0)
        greedy = [*flags[:-4], "--draws", "2"]
        refused = CliRunner().invoke(app, ["run", *greedy], env={"COLUMNS": "200"})
        assert refused.exit_code == 2
        assert "--draws 2: all would be alike, for the temperature is 0" in refused.output
        seeded = CliRunner().invoke(app, ["run", *flags, "--draws", "2", "--body", '{"seed": 1}'])
        assert seeded.exit_code == 2
    rows = pl.read_parquet("data/news/**/*.parquet")
    assert sorted(rows["draw"].to_list()) == sorted([0, 1, 2] * ROWS)
    assert rows["request_key"].n_unique() == rows["reply"].n_unique() == 3 * ROWS
    assert verify_shards(tmp_path / "data" / "news").ok
