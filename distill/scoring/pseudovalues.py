"""A classifier's score of each row, by any of the tasks' metrics."""

from collections.abc import Callable

import numpy as np

from distill.data.columns import Array
from distill.scoring.metrics import find_metric, score_sets


def make_pseudovalues(metric: str, logits: Array, target: Array) -> Array:
    """Give row i's share in a score s over n rows, float64 (n,), so that the shares' mean is the score itself.

    The jackknife's pseudovalues n s - (n - 1) s_i, s_i the score without row i (Dorfman, Berbaum and Metz 1992), are
    shifted by s minus their mean, which takes the jackknife's correction of bias out again: they are normalised
    (Hillis, Berbaum and Metz 2008). Of accuracy each is whether the row is right. `logits` and `target` are as in
    distill.scoring.metrics. A single row has all of the score. Time and memory grow with n and c, not with their
    product. Raises UsageError for an unknown metric.
    """
    whole = find_metric(metric)(logits, target)
    count = len(target)
    if count < 2:
        return np.full(count, whole)
    values = count * whole - (count - 1) * _LEAVERS_OUT[metric](logits, target)
    return np.asarray(values + (whole - values.mean()))


def _leave_out_of_accuracy(logits: Array, target: Array) -> Array:
    return _leave_out_of_mean(logits.argmax(axis=1) == target)


def _leave_out_of_f1(logits: Array, target: Array) -> Array:
    """Give F1 without each row: only the classes that the row is of and was taken for change."""
    classes, predicted = logits.shape[1], logits.argmax(axis=1)
    counted = np.array([False, True]) if classes == 2 else np.ones(classes, bool)
    right = predicted == target
    hits = np.bincount(target[right], minlength=classes)
    total = np.bincount(target, minlength=classes) + np.bincount(predicted, minlength=classes)
    now = _divide(2.0 * hits, total)
    sure = _divide(2.0 * (hits - 1), total - 2) - now  # what a class gains without a row that it has right
    unsure = _divide(2.0 * hits, total - 1) - now  # and without one that is of it, or was taken for it, but not both
    gain = np.where(right, (sure * counted)[target], (unsure * counted)[target] + (unsure * counted)[predicted])
    return np.asarray(now[counted].mean() + gain / counted.sum())


def _leave_out_of_matthews(logits: Array, target: Array) -> Array:
    """Give R_k without each row: each of its sums changes by counts of the row's two classes alone."""
    classes, predicted = logits.shape[1], logits.argmax(axis=1)
    right = predicted == target
    truth = np.bincount(target, minlength=classes).astype(np.float64)
    said = np.bincount(predicted, minlength=classes).astype(np.float64)
    total = len(target) - 1.0
    both = truth @ said - truth[predicted] - said[target] + right
    own_truth = truth @ truth - 2 * truth[target] + 1
    own_said = said @ said - 2 * said[predicted] + 1
    covariance = (right.sum() - right) * total - both
    return _divide(covariance, np.sqrt((total**2 - own_truth) * (total**2 - own_said)))


def _leave_out_of_pearson(values: Array, target: Array) -> Array:
    """Give Pearson's correlation without each row; 0 where one of the two is constant then."""
    x, y = values[:, 0].astype(np.float64), target.astype(np.float64)
    x, y = x - x.mean(), y - y.mean()
    rest = len(x) - 1  # the mean of the others is -x_i / rest, which the sums are corrected for
    xx = x @ x - x**2 - x**2 / rest
    yy = y @ y - y**2 - y**2 / rest
    xy = x @ y - x * y - x * y / rest
    scale = np.sqrt(np.maximum(xx, 0) * np.maximum(yy, 0))
    tiny = 1e-12 * np.sqrt((x @ x) * (y @ y))
    return _divide(xy, np.where(scale > tiny, scale, 0))


def _leave_out_of_f1_micro(logits: Array, target: Array) -> Array:
    said = logits > 0
    hits, total = (said & target).sum(axis=1), said.sum(axis=1) + target.sum(axis=1)
    return _divide(2.0 * (hits.sum() - hits), total.sum() - total)


def _leave_out_of_f1_macro(logits: Array, target: Array) -> Array:
    """Give the mean over labels without each row, a label at a time."""
    scores = np.zeros(len(target))
    for said, there in zip((logits > 0).T, target.T, strict=True):
        hit, total = said & there, said.astype(np.int64) + there
        scores += _divide(2.0 * (hit.sum() - hit), total.sum() - total)
    return np.asarray(scores / target.shape[1])


def _leave_out_of_mean(each: Array) -> Array:
    return np.asarray((each.sum() - each) / (len(each) - 1))


def _leave_out_of_f1_samples(logits: Array, target: Array) -> Array:
    return _leave_out_of_mean(score_sets(logits, target))


def _leave_out_of_subset_accuracy(logits: Array, target: Array) -> Array:
    return _leave_out_of_mean(((logits > 0) == target).all(axis=1))


def _divide(above: Array, below: Array) -> Array:
    """Divide where `below` is above 0; 0 elsewhere, as the metrics are where they are undefined."""
    return np.asarray(np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) > 0))


_LEAVERS_OUT: dict[str, Callable[[Array, Array], Array]] = {
    "accuracy": _leave_out_of_accuracy,
    "f1": _leave_out_of_f1,
    "matthews": _leave_out_of_matthews,
    "pearson": _leave_out_of_pearson,
    "f1_micro": _leave_out_of_f1_micro,
    "f1_macro": _leave_out_of_f1_macro,
    "f1_samples": _leave_out_of_f1_samples,
    "subset_accuracy": _leave_out_of_subset_accuracy,
}
