"""Intervals of scores, against their formulas and against what they promise."""

import numpy as np
import pytest
from scipy import stats

from distill.scoring.intervals import estimate_mean


def test_a_share_has_wilsons_interval() -> None:
    found = estimate_mean(np.array([1.0] * 7 + [0.0] * 3))
    z, n, p = stats.norm.ppf(0.975), 10, 0.7
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found.mean, found.low, found.high) == pytest.approx(
        (0.7, (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    )
    whole = estimate_mean(np.ones(20))
    assert whole.high == 1
    assert 0.8 < whole.low < 0.9, "20 of 20 right do not make sure of it"


def test_a_mean_has_students_interval() -> None:
    scores = np.random.default_rng(0).beta(2, 5, 50)
    found = estimate_mean(scores)
    expected = stats.ttest_1samp(scores, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert estimate_mean(np.array([0.25])).high == np.inf


@pytest.mark.parametrize("share", [None, 0.9])
def test_it_covers_the_mean(share: float | None) -> None:
    rng, covered = np.random.default_rng(1), 0
    for _ in range(400):
        scores = rng.beta(2, 5, 60) if share is None else (rng.random(60) < share).astype(float)
        found = estimate_mean(scores)
        covered += found.low <= (2 / 7 if share is None else share) <= found.high
    assert 0.92 < covered / 400 < 0.98
