"""Ragged tokens and padding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from distill.data.tokens import TextEncoder, join_tokens

TEXTS = ["good film", "the plot and the actor", "a", "great great great scene so fine"]
PAIRS = [None, "so bad", "awful", None]


@pytest.fixture
def encoder(tiny_student: Path) -> TextEncoder:
    return TextEncoder(AutoTokenizer.from_pretrained(tiny_student), 8)


@pytest.mark.parametrize("max_length", [5, 8, 64])
@pytest.mark.parametrize("pairs", [[None] * 4, ["so bad", "the plot", "awful", "a a a a a a a a"]])
def test_a_batch_is_what_the_tokenizer_itself_makes(
    tiny_student: Path, max_length: int, pairs: list[str | None]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    encoder = TextEncoder(tokenizer, max_length)
    tokens, _ = encoder.encode(TEXTS, pairs)
    expected = tokenizer(
        TEXTS,
        None if pairs[0] is None else pairs,
        padding=True,
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
    )
    got = encoder.collate(tokens)
    assert set(got) == set(expected)
    for name, tensor in got.items():
        assert torch.equal(tensor, expected[name]), name


def test_cut_texts_are_counted(encoder: TextEncoder) -> None:
    assert encoder.encode(TEXTS, [None] * 4)[1] == 0
    assert encoder.encode([*TEXTS, "a " * 7, "a " * 6], [None] * 6)[1] == 1
    assert encoder.encode(["a a a"], ["bad bad bad"])[1] == 1


def test_the_callers_tokenizer_keeps_its_settings(tiny_student: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    TextEncoder(tokenizer, 4)
    assert len(tokenizer("a a a a a a a a")["input_ids"]) == 10


def test_take_and_join_give_the_texts_that_were_named(encoder: TextEncoder) -> None:
    tokens, _ = encoder.encode(TEXTS, PAIRS)
    taken = tokens.take(np.array([3, 0, 3, 2]))
    for place, row in enumerate([3, 0, 3, 2]):
        alone, _ = encoder.encode([TEXTS[row]], [PAIRS[row]])
        part = taken.take(np.array([place]))
        np.testing.assert_array_equal(part.ids, alone.ids)
        np.testing.assert_array_equal(part.types, alone.types)
    joined = join_tokens([taken.take(np.array([0])), taken.take(np.array([1, 2, 3]))])
    np.testing.assert_array_equal(joined.ids, taken.ids)
    np.testing.assert_array_equal(joined.offsets, taken.offsets)


def test_a_model_without_types_gets_none(tiny_student: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    encoder = TextEncoder(tokenizer, 8)
    assert set(encoder.collate(encoder.encode(TEXTS, PAIRS)[0])) == {"input_ids", "attention_mask"}
