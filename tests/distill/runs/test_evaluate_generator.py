"""A student that writes, scored again: by the command, with intervals, and by lm-eval on the exported rows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from distill.cli import app
from distill.compute.devices import Device
from distill.config import make_distill_config
from distill.run import run_distillation
from distill.runs.export import export_rows, export_run
from distill.scoring.replies import score_replies
from shared.errors import UsageError
from shared.example import Example
from tests.distill.writing_folder import write_run, write_written_folder

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval's and datasets' own

CPU = Device(torch.device("cpu"))


def evaluate(run: Path, *flags: str) -> dict[str, Any]:
    command = ["eval", str(run), "--split", "test", "--device", "cpu", "--precision", "float32", "--json", *flags]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def ask_lm_eval(folder: Path, student: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> dict[str, Any]:
    """Score a saved student as `lm_eval --model hf --model_args pretrained=STUDENT --include_path FOLDER` does."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    (task,) = (path.stem for path in folder.glob("*.yaml"))
    found = lm_eval.simple_evaluate(
        HFLM(pretrained=str(student), device="cpu", dtype="float32", batch_size=4),
        tasks=[task],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    assert found is not None
    return {"results": found["results"][task], "samples": found["samples"][task]}


@pytest.mark.parametrize("template", ["lm-eval", "alpaca"])
def test_lm_eval_gives_the_saved_student_the_same_likelihood_scores(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    shards = write_written_folder(tmp_path / "data", tiny_generator, "choice", "accuracy", "choice")
    run = write_run(tmp_path, tiny_generator, shards, template=template)
    ours = evaluate(run)
    export_rows(run, tmp_path / "task", "lm-eval")
    theirs = ask_lm_eval(tmp_path / "task", run / "student", monkeypatch, tmp_path / "cache")["results"]
    assert ours["rows"] == 7
    assert ours["score"] == pytest.approx(theirs["acc,none"], abs=1e-12)
    assert ours["acc_norm"] == pytest.approx(theirs["acc_norm,none"], abs=1e-12)
    assert ours["interval"][0] < ours["score"] < ours["interval"][1]


@pytest.mark.parametrize(("metric", "rule"), [("rouge_l", None), ("exact_match", None), ("accuracy", "number")])
def test_lm_eval_gives_the_saved_student_the_same_scores_of_replies(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, rule: str | None
) -> None:
    shards = write_written_folder(tmp_path / "data", tiny_generator, "generation", metric, rule)
    run = write_run(tmp_path, tiny_generator, shards, template="alpaca")
    ours = evaluate(run)
    export_rows(run, tmp_path / "task", "lm-eval")
    theirs = ask_lm_eval(tmp_path / "task", run / "student", monkeypatch, tmp_path / "cache")
    kept = pq.read_table(ours["replies"]).to_pylist()
    assert [sample["resps"][0][0] for sample in theirs["samples"]] == [row["reply"] for row in kept]
    assert [sample["score"] for sample in theirs["samples"]] == [row["score"] for row in kept]
    assert ours["score"] == pytest.approx(theirs["results"]["score,none"], abs=1e-12)


@pytest.mark.real  # lm-eval takes long to start
@pytest.mark.parametrize(
    ("kind", "metric", "rule", "measured"),
    [("choice", "accuracy", "choice", "acc,none"), ("generation", "rouge_l", None, "score,none")],
)
def test_the_line_that_an_export_prints_gives_the_saved_student_the_same_score(
    tiny_generator: Path, tmp_path: Path, kind: str, metric: str, rule: str | None, measured: str
) -> None:
    """`lm_eval --model hf ...`, as a program of its own, offline and in another folder."""
    shards = write_written_folder(tmp_path / "data", tiny_generator, kind, metric, rule)
    run = write_run(tmp_path, tiny_generator, shards, template="alpaca")
    ours = evaluate(run)
    done = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "task"), "--to", "lm-eval"])
    said = re.search(r"run: lm_eval (.*)", done.stdout)
    assert said is not None, done.stderr
    flags = said[1].replace("runs/NAME", str(run)).split()
    subprocess.run(
        [sys.executable, "-m", "lm_eval", *flags, "--device", "cpu", "--output_path", "out"],  # what `lm_eval` starts
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
        check=True,
    )
    (path,) = (tmp_path / "out").rglob("results_*.json")
    (theirs,) = json.loads(path.read_text())["results"].values()
    assert ours["score"] == pytest.approx(theirs[measured], abs=1e-12)


def test_drawn_replies_are_scored_over_seeds(tiny_generator: Path, tmp_path: Path) -> None:
    shards = write_written_folder(tmp_path / "data", tiny_generator, "generation", "rouge_l")
    run = write_run(tmp_path, tiny_generator, shards)
    result = evaluate(run, "--decoding", "minillm", "--decoding", "max_new_tokens=6")
    assert list(result["by_seed"]) == ["10", "20", "30", "40", "50"]
    kept = pq.read_table(result["replies"]).to_pylist()
    assert len(kept) == 35
    assert len({row["reply"] for row in kept[::7]}) > 1, "seeds differ"
    by_seed = [np.mean([row["score"] for row in kept if row["seed"] == int(seed)]) for seed in result["by_seed"]]
    assert result["score"] == pytest.approx(np.mean(by_seed))
    assert list(result["by_seed"].values()) == pytest.approx(by_seed)
    done = CliRunner().invoke(app, ["eval", str(run), "--split", "test", "--decoding", "warm"])
    assert done.exit_code == 2
    assert "--decoding warm: give one of greedy, minillm, llm-adapters" in done.stderr
    done = CliRunner().invoke(app, ["eval", str(run), "--split", "train"])
    assert done.exit_code == 0, done.stderr
    assert "rouge_l 0." in done.stdout
    assert result["overlap"] | {"said": ""} == {
        **{"rows": 7, "exact": 6, "shared": 0, "covered": 0.0, "words": 8},
        "said": "",
    }
    done = CliRunner().invoke(app, ["eval", str(run), "--split", "test"])
    assert "of 7 test rows 6 (85.7%) stand in train as a whole" in done.stdout


@pytest.mark.parametrize(
    ("kind", "metric", "rule"), [("generation", "rouge_l", None), ("choice", "accuracy", "choice")]
)
def test_it_gives_what_the_run_gave(tiny_generator: Path, tmp_path: Path, kind: str, metric: str, rule: str) -> None:
    shards = write_written_folder(tmp_path / "data", tiny_generator, kind, metric, rule)
    options: dict[str, Any] = {"learn": ("reply",), "epochs": 1, "batch_size": 3, "student_lr": 1e-3, "device": "cpu"}
    config = make_distill_config(shards=shards, student=str(tiny_generator), precision="float32", **options)
    run, metrics = run_distillation(config, tmp_path / "runs")
    assert evaluate(run)["score"] == pytest.approx(metrics["test"], abs=1e-9)
    export_run(run, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.use_cache
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'pipeline("text-generation", model="out")' in card
    assert "trained on asked to write, with the template chat" in card
    assert "a regressor" not in card


def test_replies_are_judged_by_the_tasks_rule() -> None:
    rows = [Example("0", "2 + 2", target_text="4"), Example("1", "?", choices=("yes", "no"), label=1)]
    assert score_replies(["The answer is 4.", "no"], rows, "accuracy", "number").tolist() == [1.0, 0.0]
    assert score_replies(["4", "no"], rows, "exact_match").tolist() == [1.0, 1.0]
    assert score_replies(["four 4", "no, no"], rows, "rouge_l").tolist() == pytest.approx([2 / 3, 2 / 3])
    with pytest.raises(UsageError, match="no answer rule"):
        score_replies(["4"], rows[:1], "accuracy")
    with pytest.raises(UsageError, match="the task's metric is 'f1'"):
        score_replies(["4"], rows[:1], "f1")
