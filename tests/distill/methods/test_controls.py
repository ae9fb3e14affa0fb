"""Smoothed labels and pseudo-labels, against restatements in numpy."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from distill.compute.devices import choose_device
from distill.compute.weights import copy_trained
from distill.config import make_distill_config
from distill.controls import CONTROLS, Control
from distill.data.answers import open_teachers
from distill.data.columns import SOFT
from distill.data.run_rows import read_rows
from distill.losses.armada import code_soft, paper_soft
from distill.methods.controls import METHODS, make_method
from distill.methods.materials import find_model, gather_materials
from distill.methods.targets import match_smoothing, measure_entropy, smooth_labels
from distill.training.progress import Best, Progress
from shared.schema import Status
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


@pytest.mark.parametrize(("tau", "loss"), [(5.0, paper_soft), (1.0, paper_soft), (2.0, code_soft)])
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
    wanted = np.sqrt((difference**2).sum(axis=1)).mean() if loss is paper_soft else tau**2 * (difference**2).mean()
    got = loss(outputs.main.double(), torch.from_numpy(student), tau, "softmax")
    assert float(got) == pytest.approx(wanted, abs=1e-6)


def test_a_second_students_targets_are_the_firsts_log_probabilities_of_each_row(
    write_folder: WriteFolder, tiny_student: Path, tmp_path: Path
) -> None:
    rows = make_rows(60)
    rows[3] = with_answer(rows[3], status=Status.FAILED, embedding=None)
    folder = write_folder({"train": [rows[:20], rows[20:]], "validation": [make_rows(8, 1)]})
    config = make_distill_config(shards=folder, student=str(tiny_student), control="self-training", buffer_bytes=6000)
    opened = read_rows(config, open_teachers(config.data.shards, None))
    device = choose_device("cpu", "float32")
    materials = gather_materials(config, opened, find_model(str(tiny_student)), device, tmp_path)
    method = make_method(materials)
    first = method.make_phase(method.phases[0], {})
    model = first.best_module
    assert model is not None
    result = first.finish(Progress(best=Best(1, 1, 0.5, copy_trained(model))))
    second = method.make_phase("student", {method.phases[0]: result})
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    seen = 0
    for batch in second.batches(1, 0):
        texts = [rows[number].example.text for number in batch.own.number]
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).logits.log_softmax(1)
        torch.testing.assert_close(batch.own.tensor(SOFT), expected, atol=1e-5, rtol=0)
        seen += len(batch)
    assert seen == 59


def test_every_control_that_a_config_knows_makes_a_method() -> None:
    assert CONTROLS.keys() == set(get_args(Control))
    assert METHODS.keys() == {name for name, traits in CONTROLS.items() if traits.for_labels}
