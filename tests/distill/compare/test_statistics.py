"""The paired test: what it computes, and how often it is right where the truth is known."""

import numpy as np
import pytest
from scipy import stats

from distill.compare.measures import describe_measures
from distill.compare.statistics import compare
from shared.p_values import correct_holm
from tests.distill.compare.simulated_comparison import Made, simulate


def test_compare_restated_from_sums_of_squares() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.3, 1, (4, 30)) + rng.normal(0, 0.5, (4, 1)) + rng.normal(0, 1, 30), np.zeros((4, 30))
    found = compare(first, second)
    total = ((first - first.mean()) ** 2).sum()
    between_seeds = 30 * ((first.mean(axis=1) - first.mean()) ** 2).sum()
    between_rows = 4 * ((first.mean(axis=0) - first.mean()) ** 2).sum()
    seed, row, rest = between_seeds / 3, between_rows / 29, (total - between_seeds - between_rows) / (3 * 29)
    assert row > rest, "else the case is not the general one"
    error = np.sqrt((seed + row - rest) / 120)
    upper = seed * 3 / stats.chi2(3).ppf(0.25)
    freedom = 3 * ((upper + row - rest) / upper) ** 2
    assert found.standard_error == pytest.approx(error)
    assert found.freedom == pytest.approx(freedom)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, freedom, first.mean(), error))
    assert found.p == pytest.approx(1 - stats.t.cdf(first.mean() / error, freedom))
    assert found.by_seed == pytest.approx(first.mean(axis=1))
    reverse = compare(second, first)
    assert (reverse.mean, reverse.p) == pytest.approx((-found.mean, 1 - found.p))


def test_rows_that_answer_alike_in_all_seeds_make_it_a_test_over_seeds() -> None:
    """Where rows do not differ it is the t test over seeds: four degrees of freedom for five of them."""
    by_seed = np.array([0.1, 0.2, 0.0, 0.3, 0.1])
    found = compare(np.tile(by_seed[:, None], 50), np.zeros((5, 50)))
    assert found.freedom == pytest.approx(4)
    assert found.p == pytest.approx(stats.ttest_1samp(by_seed, 0, alternative="greater").pvalue)


def test_no_difference_and_a_constant_one() -> None:
    same = np.random.default_rng(0).integers(2, size=(5, 40)).astype(float)
    assert (compare(same, same).p, compare(same, same).low, compare(same, same).high) == (0.5, 0, 0)
    assert (compare(same + 1, same).p, compare(same, same + 1).p) == (0, 1)


@pytest.mark.parametrize("shapes", [((1, 40), (1, 40)), ((5, 1), (5, 1)), ((5, 40), (4, 40))])
def test_what_cannot_be_compared(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_holm() -> None:
    assert correct_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_holm([0.9, 0.8]) == [1, 1]
    assert correct_holm([]) == []


def test_no_interval_goes_further_than_two_scores_can_differ() -> None:
    first, second = np.zeros((2, 14)), np.zeros((2, 14))
    first[0], second[1, :12] = 1, 1
    wide, held = compare(first, second), compare(first, second, span=1)
    assert wide.low < -1
    assert (held.low, held.high) == (-1, 1)
    assert (held.p, held.mean) == (wide.p, wide.mean)


@pytest.mark.parametrize("spread", [0.0, 0.008, 0.04])
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_difference_of_nothing_is_rarely_significant(spread: float, seeds: int) -> None:
    """The level holds whether the seeds or the rows vary more; a test over rows alone would be fooled by the seeds."""
    rng = np.random.default_rng(2)
    claims, claims_of_rows = 0, 0
    for _ in range(400):
        right = simulate(rng, {"a": Made(0, spread), "b": Made(0, spread)}, seeds, 400)
        claims += compare(right["a"], right["b"]).p < 0.025
        rows = (right["a"] - right["b"]).mean(axis=0)
        claims_of_rows += stats.ttest_1samp(rows, 0, alternative="greater").pvalue < 0.025
    assert claims <= 400 * 0.025 + 9  # three standard errors
    if spread == 0.04:
        assert claims_of_rows > 400 * 0.1


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    variants = {"a": Made(0.03, 0.013), "b": Made(0, 0.013)}
    covered = 0
    for _ in range(400):
        right = simulate(rng, variants, 5, 400)
        found = compare(right["a"], right["b"])
        covered += found.low <= 0.03 <= found.high
    assert covered >= 400 * 0.93


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_interval_of_a_share_ends_at_1_among_further_measures(seeds: int) -> None:
    right = np.ones((seeds, 12))
    right[0, :1] = 0
    lines = describe_measures({"a": {"head": right, "nll": 3 * right}, "b": {"head": 0 * right}}, "b")
    share, nll = lines[0], lines[1]
    assert share["low"] < share["mean"] < share["high"] == 1
    assert share["against"]["high"] == 1
    assert nll["high"] > 3
