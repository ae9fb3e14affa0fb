"""Metrics against hand counts and textbook values."""

from typing import Any

import numpy as np
import pytest

from distill.scoring.metrics import METRICS, SET_METRICS, accuracy, f1, find_metric, matthews, pearson
from shared.errors import UsageError


def one_hot(predicted: list[int], classes: int) -> np.ndarray[Any, Any]:
    rows: np.ndarray[Any, Any] = np.eye(classes, dtype=np.float32)[predicted]
    return rows


TRUTH = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PREDICTED = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]  # 3 true positives, 2 false positives, 1 false negative, 4 true negatives


def test_two_classes() -> None:
    logits = one_hot(PREDICTED, 2)
    assert accuracy(logits, TRUTH) == 0.7
    assert f1(logits, TRUTH) == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    assert matthews(logits, TRUTH) == pytest.approx((3 * 4 - 2 * 1) / np.sqrt(5 * 4 * 6 * 5))


def test_three_classes() -> None:
    truth, logits = np.array([0, 0, 1, 1, 2, 2]), one_hot([0, 1, 1, 1, 2, 0], 3)
    assert accuracy(logits, truth) == pytest.approx(4 / 6)
    assert f1(logits, truth) == pytest.approx(np.mean([2 / 4, 4 / 5, 2 / 3]))
    # R_k: (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2)(s^2 - sum t_k^2)), c = 4, s = 6
    assert matthews(logits, truth) == pytest.approx((24 - 12) / np.sqrt((36 - 14) * (36 - 12)))


def test_one_predicted_class_has_no_correlation() -> None:
    assert matthews(one_hot([0] * 10, 2), TRUTH) == 0.0
    assert f1(one_hot([0] * 10, 2), TRUTH) == 0.0


def test_perfect_and_reversed() -> None:
    logits = one_hot(TRUTH.tolist(), 2)
    assert accuracy(logits, TRUTH) == f1(logits, TRUTH) == matthews(logits, TRUTH) == 1.0
    assert matthews(1 - logits, TRUTH) == -1.0


def test_metrics_of_several_labels_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(0)
    target = rng.random((60, 5)) < [0.0, 0.05, 0.3, 0.5, 0.9]  # the first is never there
    logits = rng.normal(size=(60, 5)) + 2 * target - [9, 2, 1, 0, 0]
    logits[0], target[0] = -1, False  # nothing is said of a row that has no label
    assert set(SET_METRICS) == {"f1_micro", "f1_macro", "f1_samples", "subset_accuracy"}
    for name in ("micro", "macro", "samples"):
        wanted = f1_score(target, logits > 0, average=name, zero_division=0)
        assert METRICS[f"f1_{name}"](logits, target) == pytest.approx(wanted)
    assert METRICS["subset_accuracy"](logits, target) == pytest.approx(accuracy_score(target, logits > 0))


def test_pearson() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 1)).astype(np.float32)
    target = (values[:, 0] + rng.normal(size=50)).astype(np.float32)
    assert pearson(values, target) == pytest.approx(np.corrcoef(values[:, 0], target)[0, 1], abs=1e-6)
    assert pearson(values * -3 + 2, values[:, 0]) == pytest.approx(-1)
    assert pearson(np.ones((4, 1)), np.arange(4)) == 0.0


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="'bleu'; distill knows accuracy, f1, matthews, pearson"):
        find_metric("bleu")
