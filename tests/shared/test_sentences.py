"""Sentence vectors against transformers' own output, and poolings against the files that ask for them."""

import json
import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from shared.errors import SourceError
from shared.frozen_models import FrozenModel
from shared.sentences import Pooling, SentenceEncoder, read_pooling, split_by_length
from shared.sources import MINILM, resolve_model

TEXTS = ["Good.", "A visually stunning rumination on love, memory and history.", "Not good at all, I am afraid"]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(MINILM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without the files that say how it pools."""
    copy = tmp_path_factory.mktemp("models") / "plain"
    source = Path(resolve_model(MINILM).location)
    copy.mkdir()
    for file in source.iterdir():
        if file.is_file() and file.name != "modules.json":
            (copy / file.name).symlink_to(file)
    return copy


def compute_hidden(text: str) -> np.ndarray[Any, Any]:
    """The model's last hidden state of one text alone, by transformers itself: (tokens, d)."""
    location = resolve_model(MINILM).location
    inputs = AutoTokenizer.from_pretrained(location)(text, return_tensors="pt")
    with torch.inference_mode():
        hidden: np.ndarray[Any, Any] = AutoModel.from_pretrained(location)(**inputs).last_hidden_state[0].numpy()
    return hidden


def test_vectors_are_the_normalised_mean_that_the_model_asks_for(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 384)
    for text, vector in zip(TEXTS, vectors, strict=True):
        mean = compute_hidden(text).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)


def test_a_model_that_says_nothing_is_pooled_by_the_plain_mean(folder: Path) -> None:
    (vector,) = SentenceEncoder(str(folder)).encode(TEXTS[:1])
    np.testing.assert_allclose(vector, compute_hidden(TEXTS[0]).mean(0), atol=2e-6)
    assert abs(np.linalg.norm(vector) - 1) > 0.1


def test_a_model_can_ask_for_its_first_token(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cls"
    shutil.copytree(folder, copy, symlinks=True)
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 384, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    )
    (vector,) = SentenceEncoder(str(copy)).encode(TEXTS[:1])
    np.testing.assert_allclose(vector, compute_hidden(TEXTS[0])[0], atol=2e-6)


def test_poolings_are_read_from_the_files(folder: Path, tmp_path: Path) -> None:
    assert read_pooling(FrozenModel(MINILM)) == Pooling("mean", normalise=True)
    assert read_pooling(FrozenModel(str(folder))) == Pooling("mean", normalise=False)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(SourceError, match="pooling_mode_max_tokens"):
        read_pooling(FrozenModel(str(tmp_path)))


def test_company_does_not_change_a_vector(encoder: SentenceEncoder) -> None:
    """Batches by length and padding are invisible."""
    many = [f"{text} {'and so on ' * count}" for count in range(12) for text in TEXTS]
    together = encoder.encode(many)
    alone = np.concatenate([encoder.encode([text]) for text in many[::5]])
    np.testing.assert_allclose(together[::5], alone, atol=3e-6)


def test_a_text_beyond_the_window_is_encoded_whole(encoder: SentenceEncoder) -> None:
    start = "an ordinary film with ordinary people in it " * 80
    same, other = encoder.encode([start + "and it is wonderful " * 60, start + "and it is dreadful " * 60])
    assert np.abs(same - other).max() > 1e-3, "the end, far beyond 512 tokens, counts"
    assert np.isfinite(same).all()


def test_no_text_is_no_vector_and_an_empty_text_has_one(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)
    assert np.isfinite(encoder.encode([""])).all()


def test_batches_hold_every_index_once_and_keep_the_budget() -> None:
    rng = random.Random(3)
    for budget in (1, 50, 1000):
        lengths = [rng.randrange(1, 200) for _ in range(rng.randrange(60))]
        batches = list(split_by_length(lengths, budget))
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)
        for shorter, longer in pairwise(batches):
            assert max(lengths[i] for i in shorter) <= min(lengths[i] for i in longer)
