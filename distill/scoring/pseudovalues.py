"""A classifier's score of each row, by any of the tasks' metrics."""

import numpy as np

from distill.data.columns import Array
from distill.scoring.metrics import find_metric


def make_pseudovalues(metric: str, logits: Array, target: Array) -> Array:
    """Give row i's share in a score s over n rows, float64 (n,): n s - (n - 1) s without row i.

    `logits` is (n, c), or (n, 1) for regression; `target` is (n,). Any of the tasks' metrics so becomes a mean over
    rows: of accuracy it is whether i is right. A single row has all of the score. Source: Dorfman, Berbaum and Metz
    (1992). Raises UsageError for an unknown metric.
    """
    score = find_metric(metric)
    count = len(target)
    whole = score(logits, target)
    if count < 2:
        return np.full(count, whole)
    if metric == "pearson":
        without = _correlate_without_each(logits[:, 0].astype(np.float64), target.astype(np.float64))
        return np.asarray(count * whole - (count - 1) * without)
    # Rows that are right or wrong in the same way do the same to the score: one of each kind is left out, once.
    kinds = np.stack([target, logits.argmax(axis=1)], axis=1)
    _, examples, kind_of = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
    without = np.array([score(np.delete(logits, row, axis=0), np.delete(target, row)) for row in examples])
    return np.asarray(count * whole - (count - 1) * without[kind_of.reshape(-1)])


def _correlate_without_each(x: Array, y: Array) -> Array:
    """Give Pearson's correlation of x and y without each row in turn, (n,); 0 where one of them is constant then."""
    x, y = x - x.mean(), y - y.mean()
    rest = len(x) - 1  # the mean of the others is -x_i / rest, which the sums are corrected for
    xx = x @ x - x**2 - x**2 / rest
    yy = y @ y - y**2 - y**2 / rest
    xy = x @ y - x * y - x * y / rest
    scale = np.sqrt(np.maximum(xx, 0) * np.maximum(yy, 0))
    tiny = 1e-12 * np.sqrt((x @ x) * (y @ y))
    return np.asarray(np.divide(xy, scale, out=np.zeros_like(xy), where=scale > tiny))
