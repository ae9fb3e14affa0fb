"""A row's score: what leaving the row out does to the task's metric."""

import numpy as np
import pytest

from distill.scoring.metrics import METRICS
from distill.scoring.pseudovalues import make_pseudovalues
from shared.errors import UsageError


@pytest.mark.parametrize(
    ("metric", "classes"), [("accuracy", 3), ("f1", 2), ("f1", 3), ("matthews", 3), ("pearson", 1)]
)
def test_pseudovalues_are_those_of_leaving_each_row_out(metric: str, classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, classes)).astype(np.float32)
    target = rng.normal(size=40) + logits[:, 0] if classes == 1 else rng.integers(classes, size=40)
    score = METRICS[metric]
    keep = ~np.eye(40, dtype=bool)
    expected = [40 * score(logits, target) - 39 * score(logits[rows], target[rows]) for rows in keep]
    assert make_pseudovalues(metric, logits, target) == pytest.approx(expected)


def test_pseudovalues_of_accuracy_are_right_and_wrong() -> None:
    logits, target = np.array([[2.0, 1], [1, 2], [3, 0]]), np.array([0, 0, 0])
    assert make_pseudovalues("accuracy", logits, target) == pytest.approx([1, 0, 1])
    with pytest.raises(UsageError, match="distill knows"):
        make_pseudovalues("bleu", logits, target)


def test_values_that_are_constant_without_a_row_correlate_with_nothing() -> None:
    values, target = np.array([[1.0], [1.0], [1.0], [4.0]]), np.array([0.1, 0.3, 0.2, 0.9])
    whole = METRICS["pearson"](values, target)
    got = make_pseudovalues("pearson", values, target)
    assert got[3] == pytest.approx(4 * whole), "without the last, all values are the same"
    assert got[0] == pytest.approx(4 * whole - 3 * METRICS["pearson"](values[1:], target[1:]))


def test_a_single_row_has_all_of_the_score() -> None:
    assert make_pseudovalues("accuracy", np.array([[0.0, 1.0]]), np.array([1])).tolist() == [1.0]
