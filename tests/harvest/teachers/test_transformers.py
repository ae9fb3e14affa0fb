"""The teacher `transformers`: what a row holds equals what the model itself says of its prompt, in any batch."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from harvest.chat.label_trie import find_first_tokens
from harvest.chat.scoring import spell_word
from harvest.config import make_harvest_config
from harvest.job import Report, run_harvest
from harvest.looking.reparse import reparse
from shared.errors import UsageError
from shared.shards import load_manifest, verify_shards
from tests.tiny_llama import make_tiny_llama

WORDS = ("a", "a b", "c", "d")
TEXTS = ("the sea", "an old card by the house, and the land", "cash?", "stones", "the sea and the land and the sea")
TOPK, REPLY_TOKENS = 3, 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("model"), [*TEXTS, *WORDS])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [{"text": text, "label": WORDS[number % len(WORDS)]} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def harvest(model: Path, rows: Path, out: Path, **more: Any) -> Report:
    own = {"teacher": "transformers", "model": str(model), "dtype": "float32", "device": "cpu"}
    options = {"task": str(rows), "out": str(out), "text_column": "text", "question": "Which?", **own, **more}
    return run_harvest(make_harvest_config(options))


def read_rows(out: Path) -> pl.DataFrame:
    return pl.read_parquet(f"{out}/teacher=*/**/*.parquet").sort("sample_id")


def gather(column: pl.Series) -> np.ndarray[Any, Any]:
    return np.array(column.to_list(), np.float64)


def make_prompt(tokenizer: Any, text: str) -> list[int]:
    said = f"<|user|>Which?\n\n{text}<|end|><|assistant|>"
    ids: list[int] = tokenizer(said, add_special_tokens=False).input_ids
    return ids


def score_by_force(network: Any, tokenizer: Any, prompt: list[int], words: Sequence[str]) -> list[float]:
    """Each word's probability, every way of writing it computed whole and alone."""
    owner = {
        tuple(tokenizer(text, add_special_tokens=False).input_ids): label
        for label, word in enumerate(words)
        for text in spell_word(word, capitals=False)
    }
    mass = [0.0] * len(words)
    for ids, label in owner.items():
        with torch.inference_mode():
            logits = network(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.double().log_softmax(-1)
        probability = float(logprobs[range(len(ids)), list(ids)].sum().exp())
        mass[label] += probability
        shorter = [owner[ids[:length]] for length in range(len(ids) - 1, 0, -1) if ids[:length] in owner]
        if shorter:  # a longer word is no answer with the shorter one
            mass[shorter[0]] -= probability
    return mass


def test_one_pass_gives_labels_replies_top_k_and_the_vector_of_the_model_itself(
    model: Path, rows: Path, tmp_path: Path
) -> None:
    """Words that begin alike, and one that begins another, are scored to their end; in batches of one and of all."""
    wished = {"label_column": "label", "labels": WORDS, "max_tokens": REPLY_TOKENS, "keep_topk": True, "layer": 1}
    wished |= {"top_logprobs": TOPK, "vector": "last"}
    first = harvest(model, rows, tmp_path / "alone", **wished, batch_tokens=1, limit=2)
    alone = harvest(model, rows, tmp_path / "alone", **wished, batch_tokens=1)
    assert (alone.kept, alone.asked, alone.failed) == (first.asked, len(TEXTS) - first.asked, 0)
    assert harvest(model, rows, tmp_path / "all", **wished).asked == len(TEXTS)
    found, again = read_rows(tmp_path / "alone"), read_rows(tmp_path / "all")
    assert verify_shards(tmp_path / "all").ok
    recipe = load_manifest(tmp_path / "all" / f"teacher={model.name}").recipe
    assert (recipe["scoring"], recipe["vector"]) == ({"mode": "words"}, {"layer": 1, "pooling": "last"})
    assert found["reply"].to_list() == again["reply"].to_list()
    assert np.abs(gather(found["label_logprobs"]) - gather(again["label_logprobs"])).max() < 1e-3
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    for row in again.to_dicts():
        prompt = make_prompt(tokenizer, row["text"])
        exact = score_by_force(network, tokenizer, prompt, WORDS)
        np.testing.assert_allclose(row["label_logprobs"], np.log(exact), atol=1e-4)
        assert row["residual_mass"] == pytest.approx(1 - sum(exact), abs=1e-5)
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            said = network.generate(ids, max_new_tokens=REPLY_TOKENS, do_sample=False, pad_token_id=0)[0, len(prompt) :]
            output = network(torch.tensor([[*prompt, *row["reply_ids"]]]), output_hidden_states=True)
        assert row["reply_ids"] == said.tolist()
        logprobs = output.logits[0, len(prompt) - 1 : -1].double().log_softmax(-1).numpy()
        np.testing.assert_allclose(row["reply_logprobs"], logprobs[range(len(said)), row["reply_ids"]], atol=1e-4)
        np.testing.assert_allclose(
            row["topk_logprobs"], np.sort(logprobs)[:, : -TOPK - 1 : -1], rtol=1 / 256, atol=2e-3
        )
        np.testing.assert_allclose(row["embedding"], output.hidden_states[1][0, len(prompt) - 1], rtol=1e-3, atol=1e-3)
    result = reparse(tmp_path / "all" / f"teacher={model.name}")
    assert (result.reread, result.changed) == (len(TEXTS), 0)


@pytest.mark.parametrize("kind", ["window", "counted"])
def test_where_prompts_cannot_be_shared_they_are_computed_anew(
    kind: str, model: Path, rows: Path, tmp_path: Path
) -> None:
    """Layers that see a window only, and positions that are looked up by their number: beyond the last is none.

    Then the longest row has no room for the longest word, and those that have ended wait for others at the edge.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    window = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.3,
    )
    counted = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=23,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(1)
    made: Any = MistralForCausalLM(window) if kind == "window" else GPT2LMHeadModel(counted)
    made.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    labelled = {"label_column": "label", "labels": WORDS, "max_tokens": 8}
    assert harvest(tmp_path / "model", rows, tmp_path / "out", **labelled).failed == (kind == "counted")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for row in read_rows(tmp_path / "out").to_dicts():
        if row["status"] == "failed":
            assert "21 tokens, and the model takes 23, its answer of 3 tokens" in row["error"]
            continue
        exact = score_by_force(network, tokenizer, make_prompt(tokenizer, row["text"]), WORDS)
        np.testing.assert_allclose(row["label_logprobs"], np.log(exact), atol=1e-3)


def test_letters_are_asked_for_in_place_of_words_and_an_empty_text_for_calibration(
    model: Path, rows: Path, tmp_path: Path
) -> None:
    labelled = {"label_column": "label", "labels": WORDS, "letters": True, "calibrate": True}
    assert harvest(model, rows, tmp_path, **labelled).failed == 0
    assert set(read_rows(tmp_path)["text"]) == set(TEXTS)  # the empty one is no row
    manifest = load_manifest(tmp_path / f"teacher={model.name}")
    assert (manifest.labels, manifest.recipe["prompt"]["label_words"]) == (WORDS, ["A", "B", "C", "D"])
    assert "\nB. a b\n" in manifest.recipe["prompt"]["question"]
    assert manifest.recipe["scoring"] == {"mode": "token_ids"}
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    said = f"<|user|>{manifest.recipe['prompt']['question']}\n\n<|end|><|assistant|>"
    with torch.inference_mode():
        logits = network(torch.tensor([tokenizer(said, add_special_tokens=False).input_ids])).logits[0, -1]
    ways = find_first_tokens("ABCD", partial(tokenizer.encode, add_special_tokens=False))
    exact = [float(logits.double().log_softmax(-1)[list(ids)].logsumexp(0)) for ids in ways]
    kept = json.loads((tmp_path / f"teacher={model.name}" / "calibration.json").read_text())
    np.testing.assert_allclose(kept["label_logprobs"], exact, atol=1e-3)
    with pytest.raises(UsageError, match="has no label scores that are computed here"):
        harvest(model, rows, tmp_path, target_text_column="label", calibrate=True)


def test_draws_are_their_own_in_any_batch(model: Path, rows: Path, tmp_path: Path) -> None:
    sampled = {"temperature": 1.0, "draws": 3, "max_tokens": 4, "template": "alpaca"}
    harvest(model, rows, tmp_path / "alone", **sampled, batch_tokens=1)
    harvest(model, rows, tmp_path / "all", **sampled)
    found = [read_rows(tmp_path / name).sort("sample_id", "draw") for name in ("alone", "all")]
    assert found[0]["reply_ids"].to_list() == found[1]["reply_ids"].to_list()
    assert len(set(map(tuple, found[0]["reply_ids"]))) > len(TEXTS), "draws of one prompt are alike"


def test_what_cannot_be_meant_is_said_before_anything_is_loaded(model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sees no pictures"):
        harvest(model, rows, tmp_path, draw="fields")
    with pytest.raises(UsageError, match=r"has the layers 0 \(embeddings\) to 2"):
        harvest(model, rows, tmp_path, vector="mean", layer=3)
    with pytest.raises(UsageError, match="--layer is that of --vector"):
        harvest(model, rows, tmp_path, layer=1)
    alike = {"label_column": "label", "labels": WORDS, "scoring": "token_ids"}
    with pytest.raises(UsageError, match=r"--scoring words"):
        harvest(model, rows, tmp_path, **alike)
    with pytest.raises(UsageError, match="device 'xyz' cannot be used: there is no such device"):
        harvest(model, rows, tmp_path, device="xyz")
    assert not list(tmp_path.glob("teacher=*/split=*"))
