"""How sure a score is: an interval around the mean of the rows' scores."""

from dataclasses import dataclass

import numpy as np

from distill.data.columns import Array

COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over rows, and the interval that covers the mean of all such rows in 95 % of samples."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


def estimate_mean(scores: Array) -> Estimate:
    """Estimate the mean of a score a row, (n,), n at least 1.

    Where every score is 0 or 1, by Wilson's interval for a share (1927), else by Student's t; of one row that is no
    share nothing is known: its interval has no end. Rows are taken as independent.
    """
    from scipy import stats

    count, mean = len(scores), float(np.mean(scores))
    if np.isin(scores, (0.0, 1.0)).all():
        interval = stats.binomtest(int(np.sum(scores)), count).proportion_ci(COVERAGE, method="wilson")
        return Estimate(mean, float(interval.low), float(interval.high))
    if count < 2:
        return Estimate(mean, -np.inf, np.inf)
    half = float(stats.t.ppf((1 + COVERAGE) / 2, count - 1) * np.std(scores, ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half)
