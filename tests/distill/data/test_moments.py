"""Mean and deviation of many vectors, and how sure they are of a sample."""

import numpy as np
import pytest

from distill.data.moments import Moments, measure_error


def add_blocks(rows: np.ndarray, *sizes: int) -> Moments:
    moments = Moments(rows.shape[1])
    for block in np.split(rows, np.cumsum(sizes)):
        moments.add(block)
    return moments


@pytest.mark.parametrize("width", [3, 5000])
def test_blocks_and_parts_come_to_the_moments_of_all_rows(width: int) -> None:
    rows = (np.random.default_rng(0).normal(size=(60, width)) * 3 + 100).astype(np.float16)
    exact = rows.astype(np.float64)
    whole = add_blocks(rows, 7, 30)
    halves = add_blocks(rows[:20], 5)
    halves.merge(Moments(width))
    halves.merge(add_blocks(rows[20:], 1))
    for moments in (whole, halves):
        assert moments.count == 60
        np.testing.assert_allclose(moments.mean, exact.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(moments.deviation, exact.std(axis=0), rtol=1e-9)


def test_the_error_is_that_of_rows_that_are_alike_within_a_group_too() -> None:
    """Over many samples of clusters, the real error of mean and deviation is what the standard error says."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(40):
        clusters = rng.normal(size=(64, 1, 30)) + 0.3 * rng.normal(size=(64, 20, 30))
        groups = [add_blocks(clusters[index::8].reshape(-1, 30)) for index in range(8)]
        total = Moments(30)
        for each in groups:
            total.merge(each)
        error = measure_error(groups, 0.0)
        true = np.sqrt(1 + 0.3**2)
        real = np.sqrt(np.mean((total.mean / true) ** 2)), np.sqrt(np.mean((total.deviation / true - 1) ** 2))
        ratios.append((real[0] / error.mean, real[1] / error.deviation))
        assert error.mean > 3 / np.sqrt(64 * 20), "far more than of as many rows that have nothing in common"
    assert np.median(ratios, axis=0) == pytest.approx([1, 1], abs=0.25)


def test_a_sample_of_nearly_all_rows_has_hardly_an_error_and_a_constant_dimension_none() -> None:
    rows = np.random.default_rng(0).normal(size=(80, 4))
    rows[:, 2] = 5.0
    groups = [add_blocks(rows[index::8]) for index in range(8)]
    few, most = measure_error(groups, 0.0), measure_error(groups, 0.99)
    assert most.mean == pytest.approx(few.mean / 10)
    assert most.deviation == pytest.approx(few.deviation / 10)
    same = measure_error([add_blocks(np.ones((5, 4))) for _ in range(8)], 0.5)
    assert (same.mean, same.deviation) == (0, 0)
