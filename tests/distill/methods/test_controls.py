"""Smoothed labels and pseudo-labels, against restatements in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.compute.devices import choose_device
from distill.data.batches import Part, Source, iterate_batches
from distill.data.split import read_split
from distill.data.tokens import TextEncoder
from distill.losses.soft_distance import soft_distance
from distill.losses.soft_mse import soft_mse
from distill.methods.controls import match_smoothing, measure_entropy, pseudo_label, smooth_labels
from distill.models.pretrained import load_student, load_tokenizer
from shared.schema import Status
from shared.shards.manifest import choose_teacher, load_manifest
from shared.sources import resolve_model
from tests.distill.distill_rows import WriteFolder, make_rows, with_answer

Array = np.ndarray[Any, Any]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def restate_entropy(p: Array) -> float:
    return float(np.mean([-sum(v * np.log(v) for v in row) for row in p]))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
def test_smoothing_has_the_entropy_of_the_soft_targets(classes: int, scale: float) -> None:
    logits = np.random.default_rng(0).normal(scale=scale, size=(50, classes))
    entropy = measure_entropy(logits)
    assert entropy == pytest.approx(restate_entropy(softmax(logits)), abs=1e-9)
    smoothing = match_smoothing(entropy, classes)
    label = np.full(classes, smoothing / classes)
    label[1] += 1 - smoothing
    assert restate_entropy(label[None]) == pytest.approx(entropy, abs=1e-6)


def test_the_ends_of_smoothing_are_the_label_and_the_uniform_distribution() -> None:
    assert match_smoothing(0.0, 3) < 1e-5
    assert match_smoothing(float(np.log(3)), 3) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("tau", "loss"), [(5.0, soft_distance), (1.0, soft_distance), (2.0, soft_mse)])
def test_smoothed_labels_are_what_the_soft_term_sees(tau: float, loss: Any) -> None:
    target = np.array([2, 0, 1, 1])
    student = np.random.default_rng(1).normal(size=(4, 3))
    outputs = smooth_labels(torch.from_numpy(target), 3, 0.3, tau)
    expected = np.full((4, 3), 0.1)
    for row, label in enumerate(target):
        expected[row, label] += 0.7
    np.testing.assert_allclose(softmax(outputs.main.numpy() / tau), expected, atol=1e-6)
    np.testing.assert_array_equal(outputs.main, outputs.auxiliary)
    difference = expected - softmax(student / tau)
    wanted = np.sqrt((difference**2).sum(axis=1)).mean() if loss is soft_distance else tau**2 * (difference**2).mean()
    got = loss(outputs.main.double(), torch.from_numpy(student), tau, False)
    assert float(got) == pytest.approx(wanted, abs=1e-6)


def test_pseudo_labels_are_the_models_own_log_probabilities_of_each_row(
    write_folder: WriteFolder, tiny_student: Path
) -> None:
    rows = make_rows(60)
    rows[3] = with_answer(rows[3], status=Status.FAILED, embedding=None)
    folder = choose_teacher(write_folder({"train": [rows[:20], rows[20:]]}))
    split = read_split(folder, load_manifest(folder), "train")
    source = resolve_model(str(tiny_student))
    torch.manual_seed(0)
    model = load_student(source, 2)
    encoder = TextEncoder(load_tokenizer(source), 64)
    everything = Source(split, split.answered, split.labelled, encoder=encoder, buffer_rows=25)
    targets = pseudo_label(model, split, everything, encoder, choose_device("cpu", "float32"))
    seen = 0
    for batch in iterate_batches([Part(everything, 8, once=True)], 8, 0, 1, encoder):
        outputs = targets(batch)
        texts = [rows[number].example.text for number in batch.number]
        inputs = AutoTokenizer.from_pretrained(tiny_student)(texts, padding=True, return_tensors="pt")
        assert isinstance(model, type(AutoModelForSequenceClassification.from_config(model.config)))
        with torch.no_grad():
            torch.testing.assert_close(outputs.main, model(**inputs).logits.log_softmax(1), atol=1e-5, rtol=0)
        assert torch.equal(outputs.auxiliary, outputs.main)
        seen += len(batch.number)
    assert seen == 59
