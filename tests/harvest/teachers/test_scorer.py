"""The scorer: what a row keeps equals what transformers says of prompt and text, whatever else was in the batch."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harvest.config import make_harvest_config
from harvest.job import Report, plan_harvest, run_harvest
from shared.errors import UsageError
from shared.fingerprints import fingerprint_tokenizer
from shared.shards import load_manifest, verify_shards
from shared.topk import decode_topk
from tests.tiny_llama import make_tiny_llama

ROWS = [
    {"ask": "Which way is north?", "say": "Up, on most maps."},
    {"ask": "Why?", "say": "Habit."},
    {"ask": "Is it cold there, and for how long of the year, would you say?", "say": "Yes, most of it."},
    {"ask": "Who lives there?", "say": ""},
]
TOPK = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose tied head and chat template, with an end of turn that is no end of text, are its own."""
    texts = [text for row in ROWS for text in row.values()]
    return make_tiny_llama(tmp_path_factory.mktemp("model"), texts, positions=96, ends=[0])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def make_options(model: Path, rows: Path, out: Path, **more: Any) -> dict[str, Any]:
    columns = {"text_column": "ask", "target_text_column": "say", "question": "Answer."}
    own = {"teacher": "scorer", "model": str(model), "top_logprobs": TOPK, "dtype": "float32", "device": "cpu"}
    return {"task": str(rows), "out": str(out), **columns, **own, **more}


def harvest(model: Path, rows: Path, out: Path, **more: Any) -> Report:
    return run_harvest(make_harvest_config(make_options(model, rows, out, **more)))


def read_table(out: Path) -> Any:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("teacher=*/split=*/*.parquet")))


def check_row(row: dict[str, Any], top: Any, reference: Any, prompt: list[int], tolerance: float) -> None:
    """Hold a row's numbers against the model's own on prompt and reply, one row at a time."""
    ids = torch.tensor([[*prompt, *row["reply_ids"]]])
    with torch.inference_mode():
        exact = reference(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1).numpy()
    places = np.arange(len(exact))
    np.testing.assert_allclose(row["reply_logprobs"], exact[places, row["reply_ids"]], atol=tolerance)
    np.testing.assert_allclose(
        top.logprobs, np.take_along_axis(exact, top.ids, 1), atol=0.002 + tolerance, rtol=1 / 256
    )
    best = np.sort(exact, axis=1)[:, ::-1][:, :TOPK]
    np.testing.assert_allclose(top.logprobs, best, atol=0.002 + tolerance, rtol=1 / 256)
    tail = np.log(1 - np.exp(np.take_along_axis(exact, top.ids, 1)).sum(1))
    np.testing.assert_allclose(top.tail, tail, atol=0.002 + tolerance, rtol=1 / 256)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.3)])
def test_references_are_scored_as_the_model_itself_scores_them(
    model: Path, rows: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    report = harvest(model, rows, tmp_path / "out", dtype=dtype, batch_tokens=64)
    assert (report.rows, report.asked) == (len(ROWS), len(ROWS) - report.unaskable)
    assert verify_shards(tmp_path / "out").ok
    reference, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    table = read_table(tmp_path / "out")
    scored = [number for number, status in enumerate(table["status"].to_pylist()) if status == "ok"]
    assert len(scored) == 3
    for number, top in zip(scored, decode_topk(table, scored), strict=True):
        row = table.slice(number, 1).to_pylist()[0]
        assert (row["reply"], row["finish_reason"]) == (row["target_text"], "given")
        assert tokenizer.convert_ids_to_tokens(row["reply_ids"][-1]) == "<|end|>"
        assert tokenizer.decode(row["reply_ids"][:-1]) == row["reply"]
        said = f"<|user|>Answer.\n\n{row['text']}<|end|><|assistant|>"
        check_row(row, top, reference, tokenizer(said, add_special_tokens=False).input_ids, tolerance)
    recipe = load_manifest(tmp_path / "out" / f"teacher={model.name}").recipe
    assert recipe["tokenizer"] == {"name": str(model), "sha256": fingerprint_tokenizer(tokenizer.get_vocab())}
    assert harvest(model, rows, tmp_path / "out", dtype=dtype).asked == 0


def test_a_text_is_scored_as_the_continuation_of_nothing(model: Path, rows: Path, tmp_path: Path) -> None:
    harvest(model, rows, tmp_path / "out", score_given="text", score_end=False)
    reference, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    table = read_table(tmp_path / "out")
    for number, top in enumerate(decode_topk(table, range(len(ROWS)))):
        row = table.slice(number, 1).to_pylist()[0]
        assert tokenizer.decode(row["reply_ids"]) == row["reply"] == row["text"]
        check_row(row, top, reference, [tokenizer.eos_token_id], 1e-4)


def test_the_replies_of_another_folder_are_scored(model: Path, rows: Path, tmp_path: Path) -> None:
    harvest(model, rows, tmp_path / "out")
    given = tmp_path / "out" / f"teacher={model.name}"
    harvest(model, rows, tmp_path / "again", score_given=str(given), top_logprobs=2)
    first, again = (
        {row["sample_id"]: row for row in read_table(tmp_path / out).to_pylist()} for out in ("out", "again")
    )
    assert len(again) == len(ROWS)
    for name, row in again.items():
        assert (row["reply_ids"], row["status"]) == (first[name]["reply_ids"], first[name]["status"])
    assert "keeps no reply" in "".join(row["error"] or "" for row in again.values())


def test_what_cannot_be_scored_is_said(model: Path, rows: Path, tmp_path: Path) -> None:
    rows.write_text(json.dumps({"ask": "far too long " * 40, "say": "yes"}) + "\n" + json.dumps(ROWS[0]) + "\n")
    plan = plan_harvest(make_harvest_config(make_options(model, rows, tmp_path / "out")))
    assert plan.forecast is not None
    assert plan.forecast.bytes.likely > 0
    harvest(model, rows, tmp_path / "out", failure_limit=1)
    errors = [row["error"] for row in read_table(tmp_path / "out").to_pylist()]
    assert any("the model takes 96" in (error or "") for error in errors)
    labelled = {"target_text_column": None, "label_column": "say"}
    with pytest.raises(UsageError, match="--score-given text"):
        harvest(model, rows, tmp_path / "labels", **labelled)
    with pytest.raises(UsageError, match="--dtype int8"):
        harvest(model, rows, tmp_path / "labels", dtype="int8")
    assert math.isfinite(plan.forecast.input_tokens.likely)
