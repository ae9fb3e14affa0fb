"""Paired tests over seeds and test rows, for few seeds.

Both are samples: a result that holds for these five seeds only, or for these test rows only, is no result. So both are
random factors, crossed, as readers and cases are in studies of medical images, where the analysis is well tested for
as few as three readers (Dorfman, Berbaum and Metz 1992; Hillis, Berbaum and Metz 2008). A bootstrap over five seeds is
too narrow, and a permutation of five signs never gets below p = 1/16.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEVEL = 0.025  # of a claim in one direction, so that what is claimed has no interval with 0 in it
COVERAGE = 0.95  # of the intervals
FEWEST_SEEDS = 3  # that anything is claimed from: two leave one degree of freedom to the spread over seeds
CAUTION = 0.25  # the quantile that says how much larger the spread over seeds may be than it looks


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one variant is than another, in units of the metric.

    `low` and `high` bound the 95% interval. `p` is the chance of so large a difference, or a larger one, if the first
    were no better; `freedom` are the degrees of freedom of its t distribution. `mean` is that of `by_seed`, and is not
    significant at LEVEL where the interval holds 0.
    """

    mean: float
    low: float
    high: float
    p: float
    standard_error: float
    freedom: float
    by_seed: tuple[float, ...]


def compare(first: Array, second: Array, span: float = inf) -> Difference:
    """Test the mean difference of two variants' row scores, each (seeds, rows) and of the same seeds and rows.

    The two-way random model d_sr = mean + seed_s + row_r + rest_sr has the variance of the mean T / (S R), with
    T = MS_seed + max(MS_row - MS_rest, 0). Hillis's (2007) degrees of freedom (S - 1) T^2 / MS_seed^2 are too many
    where few seeds happen to agree, so MS_seed is taken there, and only there, at its upper limit
    MS_seed (S - 1) / q, q the CAUTION quantile of chi^2 with S - 1 degrees of freedom; they are at most R - 1.
    No interval goes further than `span`, the largest difference that two scores can have. Raises ValueError for one
    seed or row.
    """
    if first.shape != second.shape or min(first.shape) < 2:
        raise ValueError(
            f"{first.shape} and {second.shape} cannot be compared: give the same two seeds and rows, or more"
        )
    from scipy import stats

    difference = first - second
    seeds, rows = difference.shape
    by_seed = difference.mean(axis=1)
    mean = by_seed.mean()
    seed_square, row_excess = _measure_squares(difference)
    error = float(np.sqrt((seed_square + row_excess) / (seeds * rows)))
    freedom = rows - 1.0
    if seed_square > 0:
        upper = seed_square * (seeds - 1) / float(stats.chi2.ppf(CAUTION, seeds - 1))
        freedom = min(freedom, (seeds - 1) * (1 + row_excess / upper) ** 2)
    half, p = 0.0, 0.5 if abs(mean) < 1e-12 else float(mean < 0)
    if error > 1e-12:  # else the two differ by a constant, or, p = .5, not at all
        half = error * float(stats.t.ppf((1 + COVERAGE) / 2, freedom))
        p = float(stats.t.sf(mean / error, freedom))
    low, high = max(float(mean - half), -span), min(float(mean + half), span)
    return Difference(float(mean), low, high, p, error, freedom, tuple(by_seed.tolist()))


def _measure_squares(difference: Array) -> tuple[float, float]:
    """Give MS_seed, and what MS_row has more than MS_rest, at least 0."""
    seeds, rows = difference.shape
    mean, by_seed, by_row = difference.mean(), difference.mean(axis=1), difference.mean(axis=0)
    seed_square = rows * ((by_seed - mean) ** 2).sum() / (seeds - 1)
    row_square = seeds * ((by_row - mean) ** 2).sum() / (rows - 1)
    rest = difference - by_seed[:, None] - by_row[None, :] + mean
    rest_square = (rest**2).sum() / ((seeds - 1) * (rows - 1))
    return float(seed_square), float(max(row_square - rest_square, 0.0))
