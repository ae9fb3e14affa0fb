"""The likelihood of choices is lm-eval's: its ids, its log-likelihoods, and row by row its acc and acc_norm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.compute.devices import Device
from distill.scoring.choices import encode_pair, judge_choices, judge_choices_by_length, score_choices
from shared.errors import DataError
from tests.distill.random_causal import make_random

CPU = Device(torch.device("cpu"))
# lm-eval sets these up when a model is opened.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ROWS: list[tuple[str, list[str]]] = [
    ("Question: The film is the\nAnswer:", [" great", " fine plot", " so awful", " a"]),
    ("a", [" good", " bad"]),
    ("The plot and the scene and the actor ", ["is good, the answer.", " good", "x"]),
    ("", ["The answer is good.", "The film", "</s>so"]),
    ("é", [" 答え", "!", " 答えは四です", " ñandú", " one two three four five six seven eight nine"]),
]


def ask_lm_eval(model: Any, tokenizer: Any, rows: list[tuple[str, list[str]]], batch_size: int) -> list[list[float]]:
    """lm-eval's own log-likelihoods of the same rows."""
    opened = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    requests = [
        Instance("loglikelihood", doc={}, arguments=(context, choice), idx=0)
        for context, choices in rows
        for choice in choices
    ]
    found = iter(opened.loglikelihood(requests, disable_tqdm=True))
    return [[next(found)[0] for _ in choices] for _, choices in rows]


def score(model: Any, tokenizer: Any, rows: list[tuple[str, list[str]]], batch_tokens: int = 4096) -> list[Any]:
    pairs = [[encode_pair(tokenizer, context, choice) for choice in choices] for context, choices in rows]
    contexts = [row[0][0] for row in pairs]
    same = [all(context == contexts[i] for context, _ in row) for i, row in enumerate(pairs)]
    alone = [pair for row in pairs for pair in row]
    flat = iter(score_choices(model, [c for c, _ in alone], [[ids] for _, ids in alone], CPU, batch_tokens))
    one_by_one = [np.concatenate([next(flat) for _ in row]) for row in pairs]
    shared = score_choices(model, contexts, [[ids for _, ids in row] for row in pairs], CPU, batch_tokens)
    for together, apart, is_same in zip(shared, one_by_one, same, strict=True):
        if is_same:
            np.testing.assert_allclose(together, apart, atol=1e-4)
    return one_by_one


def test_log_likelihoods_are_lm_evals(tiny_generator: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    model = AutoModelForCausalLM.from_pretrained(tiny_generator)
    expected = ask_lm_eval(model, tokenizer, ROWS, 3)
    for batch_tokens in (1, 64, 4096):
        for ours, theirs in zip(score(model, tokenizer, ROWS, batch_tokens), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-5)


def test_a_long_row_is_cut_as_lm_eval_cuts_it(tiny_generator: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    model = AutoModelForCausalLM.from_pretrained(tiny_generator)
    rows = [("The film is so " + "bad, the answer. " * 90, ["good", "the answer and the plot"]), *ROWS[:1]]
    assert len(tokenizer.encode(rows[0][0])) > model.config.max_position_embeddings
    for ours, theirs in zip(score(model, tokenizer, rows), ask_lm_eval(model, tokenizer, rows, 1), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["opt", "gpt2", "gemma2"])
def test_other_families_read_a_context_once_as_well(tiny_generator: Path, architecture: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    model = make_random(architecture, len(tokenizer))
    for ours, theirs in zip(score(model, tokenizer, ROWS), ask_lm_eval(model, tokenizer, ROWS, 1), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-5)


def test_a_row_that_cannot_be_scored_is_refused(tiny_generator: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_generator)
    with pytest.raises(DataError, match="row 1 has an empty context or an empty choice"):
        score_choices(model, [[3], [3]], [[[4], [5]], [[4], []]], CPU)
    with pytest.raises(DataError, match="row 0 has a choice of 300 tokens; the student has 256"):
        score_choices(model, [[3]], [[[4], [5] * 300]], CPU)


def test_acc_and_acc_norm() -> None:
    likelihoods = [np.array([-4.0, -5.0]), np.array([-3.0, -3.0, -2.0])]
    assert judge_choices(likelihoods, [0, 1]).tolist() == [1.0, 0.0]
    assert judge_choices_by_length(likelihoods, [1, 1], [[2, 7], [1, 2, 1]]).tolist() == [1.0, 1.0]
