"""Rows that take several requests: what each of them costs, and what is paid for one that is cut."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harvest.chat.dialects.following import COMPLETION_PATH, TEMPLATE_PATH, TOKENIZE_PATH
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, run_harvest
from shared.schema import Status
from tests.harvest.fault_server import WORDS, FaultServer
from tests.harvest.teachers.endpoint.endpoint_runs import make_examples, make_teacher, run_all

READ, WRITTEN = 10, 1  # tokens of a prompt, as the server counts them
PRICE = 1e-6 * (READ + WRITTEN)  # of a prompt, in US dollars
OPTIONS: dict[str, Any] = {"dialect": "llamacpp", "scoring": "words", "price_in": 1.0, "price_out": 1.0}


def write_prompt(body: dict[str, Any]) -> Any:
    return {"prompt": body["messages"][0]["content"]}


def tokenize(body: dict[str, Any]) -> Any:
    return {"tokens": list(map(ord, body["content"]))}


class Completions:
    """The route that scores: it finds all named tokens equally probable, and counts the prompts that it reads."""

    def __init__(self) -> None:
        self.prompts = 0

    def __call__(self, body: dict[str, Any]) -> Any:
        """What each prompt of a request brings."""
        self.prompts += len(body["prompt"])
        tokens = [token for token, _ in body["logit_bias"]]
        top = [{"id": token, "prob": 1 / len(tokens)} for token in tokens]
        position = {"id": tokens[0], "logprob": -math.log(len(tokens)), "top_probs": top}
        usage = {"tokens_evaluated": READ, "tokens_predicted": WRITTEN}
        return [{"index": at, "completion_probabilities": [position], **usage} for at, _ in enumerate(body["prompt"])]


def serve(completions: Completions) -> FaultServer:
    return FaultServer(routes={TEMPLATE_PATH: write_prompt, TOKENIZE_PATH: tokenize, COMPLETION_PATH: completions})


def harvest(folder: Path, server: FaultServer, **options: Any) -> Report:
    texts = folder / "texts.csv"
    texts.write_text("text,label\n" + "".join(f"film {n},{WORDS[n % 2]}\n" for n in range(4)))
    task = TaskChoice(str(texts), text_column="text", label_column="label", labels=WORDS, label_words=WORDS)
    known = {"endpoint": server.url, "model": "m", **OPTIONS, "concurrency": 1}
    return run_harvest(HarvestConfig(task, TeacherChoice("endpoint", options=known | options), out=folder / "out"))


def test_a_row_says_what_all_of_its_requests_cost() -> None:
    completions = Completions()
    with serve(completions) as server:
        teacher = make_teacher(server, **OPTIONS)
        replies = run_all(teacher, make_examples(3))
    assert {reply.answer.status for reply in replies} == {Status.OK}
    assert min(reply.answer.attempts for reply in replies) > 2
    costs = [reply.answer.cost_usd or 0.0 for reply in replies]
    assert sum(costs) == pytest.approx(teacher.budget.spent_usd) == pytest.approx(completions.prompts * PRICE)
    assert teacher.unanswered_usd == 0


def test_what_was_paid_for_a_row_that_the_budget_cuts_is_in_the_cost_of_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    completions = Completions()
    with serve(completions) as server:
        first = harvest(tmp_path, server, max_requests=3)  # the prompt's, which is free, and two about the labels
        assert (first.asked, first.left) == (0, 4)
        paid = completions.prompts * PRICE
        assert first.cost_usd == pytest.approx(paid)
        assert paid > 0
        assert "they are asked again, whole" in capsys.readouterr().err
        second = harvest(tmp_path, server)
        assert (second.asked, second.left) == (4, 0)
        rows = pl.read_parquet(tmp_path / "out/teacher=m/**/*.parquet")
        assert second.cost_usd == pytest.approx(rows["cost_usd"].sum())
        assert second.cost_usd == pytest.approx(completions.prompts * PRICE - paid)
