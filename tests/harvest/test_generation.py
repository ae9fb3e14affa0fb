"""Tasks whose answer is free text: a reply is ok as it is, and rows carry the right texts."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.cli import app
from shared.shards import verify_shards
from tests.harvest.fault_server import FaultServer, make_reply

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
