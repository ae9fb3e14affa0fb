"""Paired tests over seeds and test rows, for few seeds.

Both are samples: a result that holds for these five seeds only, or for these test rows only, is no result. So both are
random factors, crossed, as readers and cases are in studies of medical images, where the analysis is well tested for
as few as three readers (Dorfman, Berbaum and Metz 1992; Hillis, Berbaum and Metz 2008). A bootstrap over five seeds is
too narrow, and a permutation of five signs never gets below p = 1/16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEVEL = 0.05  # of a claim that one variant is better than another, which has one direction
COVERAGE = 0.95  # of the intervals


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one variant is than another, in units of the metric.

    `low` and `high` bound the 95% interval. `p` is the chance of so large a difference, or a larger one, if the first
    were no better; `freedom` are the degrees of freedom of its t distribution. `mean` is that of `by_seed`.
    """

    mean: float
    low: float
    high: float
    p: float
    standard_error: float
    freedom: float
    by_seed: tuple[float, ...]


def compare(first: Array, second: Array) -> Difference:
    """Test the mean difference of two variants' row scores, each (seeds, rows) and of the same seeds and rows.

    The two-way random model d_sr = mean + seed_s + row_r + rest_sr has the variance of the mean
    [MS_seed + max(MS_row - MS_rest, 0)] / (S R), and Hillis's (2007) degrees of freedom
    (S - 1) [MS_seed + max(MS_row - MS_rest, 0)]^2 / MS_seed^2, at most R - 1. Raises ValueError for one seed or row.
    """
    if first.shape != second.shape or min(first.shape) < 2:
        raise ValueError(
            f"{first.shape} and {second.shape} cannot be compared: give the same two seeds and rows, or more"
        )
    from scipy import stats

    difference = first - second
    seeds, rows = difference.shape
    mean = difference.mean()
    by_seed, by_row = difference.mean(axis=1), difference.mean(axis=0)
    seed_square = rows * ((by_seed - mean) ** 2).sum() / (seeds - 1)
    row_square = seeds * ((by_row - mean) ** 2).sum() / (rows - 1)
    rest = difference - by_seed[:, None] - by_row[None, :] + mean
    rest_square = (rest**2).sum() / ((seeds - 1) * (rows - 1))
    total = seed_square + max(row_square - rest_square, 0.0)
    error = float(np.sqrt(total / (seeds * rows)))
    freedom = rows - 1.0
    if seed_square > 0:
        freedom = min(freedom, (seeds - 1) * float(total / seed_square) ** 2)
    half, p = 0.0, float(mean <= 0)
    if error > 1e-12:  # else the two differ by a constant, or not at all
        half = error * float(stats.t.ppf((1 + COVERAGE) / 2, freedom))
        p = float(stats.t.sf(mean / error, freedom))
    return Difference(float(mean), float(mean - half), float(mean + half), p, error, freedom, tuple(by_seed.tolist()))


def correct_holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's method (1979), in their order: the chance of any false claim stays below the level."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
