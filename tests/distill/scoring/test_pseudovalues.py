"""A row's score: what leaving the row out does to the task's metric."""

from typing import Any

import numpy as np
import pytest

from distill.scoring.metrics import METRICS, SET_METRICS
from distill.scoring.pseudovalues import make_pseudovalues
from shared.errors import UsageError


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("lean", [0.0, 3.0], ids=["even", "one class is nearly always said"])
def test_pseudovalues_are_those_of_leaving_each_row_out_and_their_mean_is_the_score(
    metric: str, classes: int, lean: float
) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, classes)) + lean * np.eye(classes)[0]
    target: np.ndarray[Any, Any] = rng.integers(classes, size=40)
    if metric == "pearson":
        logits, target = logits[:, :1], rng.normal(size=40) + logits[:, 0]
    if metric in SET_METRICS:
        target = rng.random((40, classes)) < np.linspace(0.02, 0.5, classes)
    score = METRICS[metric]
    whole = score(logits, target)
    keep = ~np.eye(40, dtype=bool)
    left_out = np.array([40 * whole - 39 * score(logits[rows], target[rows]) for rows in keep])
    got = make_pseudovalues(metric, logits, target)
    assert got == pytest.approx(left_out + whole - left_out.mean())
    assert got.mean() == pytest.approx(whole)


def test_pseudovalues_of_accuracy_are_right_and_wrong() -> None:
    logits, target = np.array([[2.0, 1], [1, 2], [3, 0]]), np.array([0, 0, 0])
    assert make_pseudovalues("accuracy", logits, target) == pytest.approx([1, 0, 1])
    with pytest.raises(UsageError, match="distill knows"):
        make_pseudovalues("bleu", logits, target)


def test_values_that_are_constant_without_a_row_correlate_with_nothing() -> None:
    values, target = np.array([[1.0], [1.0], [1.0], [4.0]]), np.array([0.1, 0.3, 0.2, 0.9])
    whole = METRICS["pearson"](values, target)
    got = make_pseudovalues("pearson", values, target)
    # Without the last, all values are the same. The shift to the mean is the same for all rows.
    assert got[3] - got[0] == pytest.approx(3 * METRICS["pearson"](values[1:], target[1:]))
    assert got.mean() == pytest.approx(whole)


def test_a_single_row_has_all_of_the_score() -> None:
    assert make_pseudovalues("accuracy", np.array([[0.0, 1.0]]), np.array([1])).tolist() == [1.0]
