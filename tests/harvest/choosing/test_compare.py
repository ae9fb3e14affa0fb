"""Teachers of planted accuracies: the right one is recommended, the cap holds, and nothing is paid for twice."""

import csv
import json
import math
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.asking.select import describe_unsure, find_unsure
from harvest.choosing.advice import advise
from harvest.choosing.measures import Measures, Pair, compare_pairs, find_mcnemar_p, find_unsure_rows
from harvest.choosing.rows import read_common_rows
from harvest.cli import app
from shared.shards import verify_shards
from shared.shards.manifest import MANIFEST_NAME, load_manifest
from tests.harvest.fault_server import WORDS, Asked, FaultServer, make_reply

ROWS = 180
TASK = ["--task", "films.csv", "--text-column", "text", "--label-column", "label", "--label-words", "negative,positive"]
PROMPT_TOKENS = 100  # a row, and one for the answer: more than a plan guesses before any row is kept
CHEAP_PRICE, DEAR_PRICE = 0.1, 4.0  # dollars a million tokens


def find_number(asked: Asked) -> int:
    """The number of the film that is asked about; its parity is its label."""
    found = re.search(r"film number (\d+)", json.dumps(asked.body))
    assert found is not None
    return int(found[1])


def draw(number: int, salt: str) -> float:
    return int.from_bytes(blake2b(f"{salt}{number}".encode(), digest_size=8).digest()) / 2**64


def make_server(salt: str, accuracy: float, price: float) -> FaultServer:
    """A server that is right so often, sure of what it gets right and mostly unsure of the rest."""

    def answer(asked: Asked) -> dict[str, Any]:
        number = find_number(asked)
        is_right = draw(number, salt) < accuracy
        said = number % 2 if is_right else 1 - number % 2
        sure = 0.95 if is_right else 0.6
        logprobs = {WORDS[said]: math.log(sure), WORDS[1 - said]: math.log(0.98 - sure)}
        return make_reply(WORDS[said], logprobs, PROMPT_TOKENS)

    return FaultServer(answer=answer, price_in=price / 1e6, price_out=price / 1e6)


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultServer, FaultServer]]:
    monkeypatch.chdir(tmp_path)
    with open("films.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"film number {i}", i % 2] for i in range(ROWS))
    with make_server("a", 0.7, CHEAP_PRICE) as cheap, make_server("b", 0.96, DEAR_PRICE) as dear:
        for name, server, price in (("cheap", cheap, CHEAP_PRICE), ("dear", dear, DEAR_PRICE)):
            Path(f"{name}.yaml").write_text(
                f"{{teacher: endpoint, name: {name}, endpoint: '{server.url}', model: m, dialect: openai, "
                f"scoring: top_logprobs, price_in: {price}, price_out: {price}}}"
            )
        yield cheap, dear


def run(command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [command, *TASK, *arguments, "--json"])
    assert result.exit_code == code, result.output
    return dict(json.loads(result.stdout)) if code == 0 else {"said": " ".join(result.output.split())}


def harvest(command: str, name: str, *more: str) -> dict[str, Any]:
    return run(command, "--config", f"{name}.yaml", *more)


def test_the_better_teacher_is_recommended_and_nothing_is_paid_twice(servers: tuple[FaultServer, FaultServer]) -> None:
    cheap, dear = servers
    both = ["--teacher", "cheap.yaml", "--teacher", "dear.yaml", "--limit", "100"]
    Path("both.yaml").write_text(f"limit: 100\nteacher: [{Path('cheap.yaml').read_text()}, dear.yaml]\n")
    for named in (both, ["--config", "both.yaml"]):
        refused = run("compare", *named, "--max-cost", "0.001", code=2)
        assert "that is more than --max-cost 0.001: nothing was asked" in refused["said"]
    assert not cheap.requests
    assert not dear.requests

    found = run("compare", *both, "--max-cost", "1")
    assert (found["chosen"], found["asked"], found["rows"], found["split"]) == ("dear", 200, 100, "train")
    assert found["spent_usd"] == pytest.approx(cheap.count.billed_usd + dear.count.billed_usd)
    assert "dear" in found["advice"][0]
    assert "no chance (p < 0.001" in found["advice"][0]
    for name, accuracy in (("cheap", 0.7), ("dear", 0.96)):
        one = found["teachers"][name]
        assert one["low"] < accuracy < one["high"]
        assert (one["failed"], one["known"], one["no_label"]) == (0, 100, pytest.approx(0.02))
        assert one["whole_task"]["minutes"] > 0
    assert found["teachers"]["dear"]["brier"] < found["teachers"]["cheap"]["brier"]

    again = run("compare", *both)  # kept: nobody is asked again, nor by a run of all
    assert (again["asked"], again["chosen"]) == (0, "dear")
    rest = harvest("run", "dear")
    assert (rest["asked"], rest["kept"]) == (ROWS - 100, 100)
    whole = found["teachers"]["dear"]["whole_task"]
    assert whole["rows"] == ROWS
    assert whole["cost_usd"]["likely"] == pytest.approx(dear.count.billed_usd, rel=0.02)  # the bill is the plan's
    manifest = Path("data/films/teacher=dear") / MANIFEST_NAME
    before = manifest.read_bytes()
    run("compare", *both)
    assert manifest.read_bytes() == before, "a whole harvest is not planned anew as the few rows that are compared"
    kept = ["--teacher", "data/films/teacher=cheap", "--teacher", "data/films/teacher=dear"]
    shown = CliRunner().invoke(app, ["compare", *kept]).stdout
    assert "whole task" in shown
    assert "right alone: cheap" in " ".join(shown.split())


def test_the_cap_holds_over_all_teachers(servers: tuple[FaultServer, FaultServer]) -> None:
    cheap, dear = servers
    cap = 0.03  # more than the plan, and less than all will cost
    both = ["--teacher", "cheap.yaml", "--teacher", "dear.yaml", "--limit", "100"]
    stopped = run("compare", *both, "--max-cost", str(cap), code=1)
    assert "What was answered is kept, and is not asked again" in stopped["said"]
    assert stopped["said"].count("cut by the hash of sample_id") == 1, "the task is loaded, and told of, once for all"
    assert cap / 2 < cheap.count.billed_usd + dear.count.billed_usd <= cap
    assert sum(cheap.count.answered.values()) == 100
    before = sum(dear.count.answered.values())
    assert before > 10
    assert run("compare", *both)["asked"] == 100 - before


def test_a_cascade_asks_the_dear_teacher_where_the_cheap_one_is_unsure(
    servers: tuple[FaultServer, FaultServer],
) -> None:
    _, dear = servers
    harvest("run", "cheap")
    wrong = {number for number in range(ROWS) if draw(number, "a") >= 0.7}
    escalate = ["--escalate", "data/films/teacher=cheap", "--unsure-below", "0.8"]
    plan = harvest("plan", "dear", *escalate)
    assert (plan["to_ask"], plan["rows"]) == (len(wrong), len(wrong))
    assert not dear.requests
    done = harvest("run", "dear", *escalate)
    assert done["asked"] == len(wrong) == sum(dear.count.answered.values())
    assert done["cost_usd"] == pytest.approx(dear.count.billed_usd)
    assert {find_number(asked) for asked in dear.requests} == wrong
    assert harvest("run", "dear", *escalate)["asked"] == 0
    assert harvest("plan", "dear", *escalate, "--limit", "train=5")["splits"]["train"] == 5

    folders = ["--folder", "data/films/teacher=dear", "--folder", "data/films/teacher=cheap"]
    merged = run("import", *folders, "--name", "cascade")
    assert (merged["imported"], merged["failed"], merged["missing"]) == (ROWS, 0, 0)
    assert merged["agreement"]["splits"]["all"]["share"] > 0.95
    assert verify_shards(Path(merged["folder"])).ok
    found = run("compare", "--teacher", "data/films/teacher=cheap", "--teacher", merged["folder"])
    assert found["teachers"]["cascade"]["right"] > found["teachers"]["cheap"]["right"]
    assert found["teachers"]["cascade"]["cost_usd"] is None  # it was paid for in two folders: that is not nothing
    chosen = run("compare", "--teacher", "data/films/teacher=cheap", "--teacher", "data/films/teacher=dear")
    assert (chosen["is_sample"], chosen["chosen"]) == (False, None)  # the dear one had the hard rows only
    assert "no random sample" in chosen["advice"][0]
    rows = pl.read_parquet("data/films/teacher=cascade/split=*/*.parquet")
    assert (rows["raw"].null_count(), rows["cost_usd"].sum()) == (ROWS, 0)  # paid, and kept, in the two folders

    said = run("run", "--config", "dear.yaml", "--name", "cascade", code=1)["said"]
    assert "holds answers that were imported" in said
    said = run("plan", "--config", "dear.yaml", "--escalate", "data/films/teacher=dear", code=2)["said"]
    assert "that is this teacher's own folder" in said
    said = run("run", "--config", "dear.yaml", "--unsure-below", "0.9", code=2)["said"]
    assert "name its folder with --escalate" in said


def write_answers(name: str, right: int) -> str:
    with open(f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "reply"])
        writer.writerows([f"film number {i}", WORDS[i % 2 if i < right else 1 - i % 2]] for i in range(ROWS))
    return str(run("import", "--answers", f"{name}.csv")["folder"])


def test_what_the_rows_do_not_show_is_not_claimed(servers: tuple[FaultServer, FaultServer]) -> None:
    folders = [write_answers("one", 140), write_answers("two", 143)]
    found = run("compare", *(word for folder in folders for word in ("--teacher", folder)))
    assert found["chosen"] is None
    assert "do not tell one and two apart" in found["advice"][0]
    assert "about" in found["advice"][0]
    assert "The price of one and two is not known" in found["advice"][1]
    assert found["teachers"]["one"]["calibration_error"] is None  # one vote a row tells no confidence
    said = run("compare", "--teacher", folders[0], "--teacher", "cheap.yaml", "--teacher", "cheap.yaml", code=2)["said"]
    assert "two of the teachers would be kept under teacher=cheap" in said
    assert "did you mean reader?" in run("compare", "--teacher", folders[0], "--teacher", "redaer", code=2)["said"]
    assert "needs two or more of --teacher" in run("compare", "--teacher", folders[0], code=2)["said"]
    np.save("clip.npy", np.ones((ROWS, 2), np.float32))
    vectors = str(run("import", "--vectors", "clip.npy")["folder"])
    said = run("compare", "--teacher", folders[0], "--teacher", vectors, code=2)["said"]
    assert "teacher=clip keeps no label probabilities" in said
    said = run("compare", "--teacher", "cheap.yaml", "--teacher", "reader", code=2)["said"]
    assert "the teacher reader gives no label probabilities" in said
    pl.DataFrame({"text": ["a", "b"] * 20, "score": [0.5, 1.5] * 20}).write_csv("numbers.csv")
    numbers = ["compare", "--task", "numbers.csv", "--text-column", "text", "--target-column", "score"]
    result = CliRunner().invoke(app, [*numbers, "--teacher", "cheap.yaml", "--teacher", "dear.yaml"])
    assert result.exit_code == 2
    assert "has numbers as answers, and no rule that says which are right" in result.output
    assert not [asked for server in servers for asked in server.requests]
    first, second = read_common_rows(list(map(Path, folders)), None).teachers
    (pair,) = compare_pairs(["one", "two"], [first, second])
    assert (pair.only_first, pair.only_second) == (0, 3)
    assert pair.p == pytest.approx(0.25)
    assert pair.same == pytest.approx(1 - 3 / ROWS)


def make_measures(right: int, known: int = 200) -> Measures:
    share = right / known
    return Measures(known, known, right, share, share - 0.1, share + 0.1, 0, None, None, None, 0.1)


def test_of_teachers_that_are_not_told_apart_the_cheaper_one_is_taken() -> None:
    measures = {"small": make_measures(180), "large": make_measures(184)}
    pair = Pair("small", "large", 0.9, 8, 12, 0.5, 3000)
    chosen, advice = advise(measures, [pair], {"small": 1.0, "large": 20.0}, [])
    assert chosen == "small"
    assert "about 3,000 rows would show it" in advice[0]
    assert "Take the cheaper one, small: $1.00 for the whole task, and not $20.00 (large)." in advice[1]
    chosen, advice = advise(measures, [Pair("small", "large", 0.9, 1, 25, 1e-5, 40)], {"small": 1.0, "large": 20.0}, [])
    assert chosen == "large"
    assert "It costs $20.00 for the whole task, small $1.00." in advice[0]
    measures = {"one": make_measures(180), "two": make_measures(181), "large": make_measures(184)}
    pairs = [Pair(a, b, 0.9, 8, 12, 0.5, 3000) for a, b in (("one", "two"), ("one", "large"), ("two", "large"))]
    chosen, advice = advise(measures, pairs, {"one": 1.0, "two": 1.0, "large": 20.0}, [])
    assert chosen == "two", "two of the same price do not make the dear one the cheapest"
    assert "Take the cheaper one, two: $1.00 for the whole task, and not $20.00 (large)." in advice[1]
    assert advise(measures, pairs, dict.fromkeys(measures, 1.0), [])[0] == "large"


def test_the_tests_are_those_of_the_books() -> None:
    for only_first, only_second in ((0, 0), (3, 9), (40, 61), (700, 810), (5, 0)):
        total = only_first + only_second
        as_uneven = sum(math.comb(total, one) for one in range(total + 1) if one <= min(only_first, only_second))
        wanted = min(1.0, 2 * as_uneven / 2**total)  # of a binomial distribution with a half
        assert find_mcnemar_p(only_first, only_second) == pytest.approx(wanted)


def test_a_cascade_over_several_labels_is_estimated_over_the_rows_that_it_would_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = [(0.02, 0.03), (0.95, 0.04), (0.95, 0.5)] * 20  # sure that none fits, sure of one, unsure of the second
    pl.DataFrame(
        {"id": range(60), "text": [f"film {n}" for n in range(60)], "a": [1, 0] * 30, "b": [0] * 60}
    ).write_csv("films.csv")
    pl.DataFrame({"id": range(60), "a": [a for a, _ in said], "b": [b for _, b in said]}).write_csv("said.csv")
    task = ["--task", "films.csv", "--id-column", "id", "--text-column", "text", "--label-columns", "a,b"]
    made = CliRunner().invoke(app, ["import", *task, "--answers", "said.csv", "--name", "said"])
    assert made.exit_code == 0, made.output
    folder = Path("data/films/teacher=said")
    manifest = load_manifest(folder)
    (own, _) = read_common_rows([folder, folder], None).teachers
    would_ask = find_unsure(folder, manifest, [*manifest.planned], 0.8)
    assert find_unsure_rows(own, 0.8).sum() == would_ask.count == 20
    assert "20 with a label that it neither gives nor refuses with 0.8 or more" in describe_unsure(
        would_ask, folder, 0.8
    )
