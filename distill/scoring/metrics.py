"""The metrics of the tasks, in float64. `logits` is (n, c), or (n, 1) for regression; `target` is (n,).

Where a row has several labels, `target` is (n, c) of booleans, and a label is said where its logit is above 0: where
it is likelier than not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from shared.errors import UsageError

Array = np.ndarray[Any, Any]


def accuracy(logits: Array, target: Array) -> float:
    """Give the share of rows whose largest logit is their label's."""
    return float((logits.argmax(axis=1) == target).mean())


def f1(logits: Array, target: Array) -> float:
    """Give F1 of class 1 where there are two classes, else the mean over classes; 0 where it is undefined."""
    predicted = logits.argmax(axis=1)
    classes = [1] if logits.shape[1] == 2 else range(logits.shape[1])
    scores = []
    for label in classes:
        hits = int(((predicted == label) & (target == label)).sum())
        total = int((predicted == label).sum() + (target == label).sum())
        scores.append(2 * hits / total if total else 0.0)
    return float(np.mean(scores))


def matthews(logits: Array, target: Array) -> float:
    """Give Matthews' correlation, R_k of Gorodkin (2004) for more than two classes; 0 where it is undefined."""
    classes = logits.shape[1]
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (target, logits.argmax(axis=1)), 1)
    truth, predicted, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    covariance = np.trace(confusion) * total - truth @ predicted
    scale = np.sqrt((total**2 - truth @ truth) * (total**2 - predicted @ predicted))
    return float(covariance / scale) if scale else 0.0


def pearson(values: Array, target: Array) -> float:
    """Give Pearson's correlation of the values (n, 1) with the targets; 0 where one of them is constant."""
    x = values[:, 0].astype(np.float64)
    y = target.astype(np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale else 0.0


def f1_micro(logits: Array, target: Array) -> float:
    """Give F1 of all labels of all rows together, 2 hits / (said + there); 0 where it is undefined."""
    said = logits > 0
    total = int(said.sum() + target.sum())
    return 2 * int((said & target).sum()) / total if total else 0.0


def f1_macro(logits: Array, target: Array) -> float:
    """Give the mean over labels of each one's F1; one that is neither said nor there counts 0, as in scikit-learn."""
    said = logits > 0
    hits, total = (said & target).sum(axis=0), said.sum(axis=0) + target.sum(axis=0)
    return float(np.divide(2.0 * hits, total, out=np.zeros(len(total)), where=total > 0).mean())


def f1_samples(logits: Array, target: Array) -> float:
    """Give the mean over rows of each one's F1."""
    return float(score_sets(logits, target).mean())


def score_sets(logits: Array, target: Array) -> Array:
    """Give each row's F1, float64 (n,); 0 where nothing is said of a row that has no label, as in scikit-learn."""
    said = logits > 0
    hits, total = (said & target).sum(axis=1), said.sum(axis=1) + target.sum(axis=1)
    return np.asarray(np.divide(2.0 * hits, total, out=np.zeros(len(total)), where=total > 0))


def subset_accuracy(logits: Array, target: Array) -> float:
    """Give the share of rows of which exactly their labels are said."""
    return float(((logits > 0) == target).all(axis=1).mean())


METRICS: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "f1_micro": f1_micro,
    "f1_macro": f1_macro,
    "f1_samples": f1_samples,
    "subset_accuracy": subset_accuracy,
}
SET_METRICS = ("f1_micro", "f1_macro", "f1_samples", "subset_accuracy")  # of several labels a row
SPANS = {name: 2.0 if name in ("matthews", "pearson") else 1.0 for name in METRICS}  # the largest difference of scores


def find_metric(name: str) -> Callable[[Array, Array], float]:
    """Find the metric that a task names. Raises UsageError."""
    if name not in METRICS:
        raise UsageError(f"the task's metric is {name!r}; distill knows {', '.join(METRICS)}")
    return METRICS[name]
