"""The verdict, on comparisons whose truth is known."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.compare.verdict import Verdict, rank, reach_verdicts
from distill.config import make_distill_config
from tests.distill.compare.simulated_comparison import CONTROLS, ROLES, measure_error, simulate

REGULARISED = dict(zip(CONTROLS, (2, 0, -1, -1, -2, -4, -6), strict=True))  # what controls gain, in standard errors


def count_outcomes(seed_deviation: float, teacher: float, controls: dict[str, int], repeats: int) -> Counter[str]:
    """Outcomes of simulated comparisons, with all gains in standard errors of a difference."""
    rng = np.random.default_rng(5)
    _, unit = measure_error(rng, seed_deviation)
    gains = {name: gain * unit for name, gain in {"undistilled": 0, "teacher": teacher, **controls}.items()}
    return Counter(
        reach_verdicts([(100, simulate(rng, gains, seed_deviation))], ROLES)[0].outcome for _ in range(repeats)
    )


@pytest.mark.parametrize("seed_deviation", [0.03, 0.05, 0.15])
@pytest.mark.parametrize("controls", [REGULARISED, dict.fromkeys(CONTROLS, 0), {}], ids=["spread", "equal", "none"])
def test_a_teacher_of_noise_is_called_no_effect(seed_deviation: float, controls: dict[str, int]) -> None:
    """At least 95 of 100 find neither help nor harm, and the test against undistilled keeps its own level of 5%."""
    outcomes = count_outcomes(seed_deviation, 0, controls, 200)
    assert outcomes["helps"] + outcomes["hurts"] <= 200 * 0.05
    assert outcomes["none"] >= 200 * 0.92  # 95%, and two standard errors


@pytest.mark.parametrize("seed_deviation", [0.03, 0.05, 0.08])
def test_an_effect_of_three_standard_errors_is_found(seed_deviation: float) -> None:
    """At least 80 of 100, where regularisation gives something too: the teacher is three above the best control."""
    outcomes = count_outcomes(seed_deviation, REGULARISED["control 0"] + 3, REGULARISED, 400)
    assert outcomes["helps"] >= 400 * 0.8


@pytest.mark.parametrize("seed_deviation", [0.03, 0.15])
def test_a_gain_that_a_control_has_too_is_not_the_teachers(seed_deviation: float) -> None:
    outcomes = count_outcomes(seed_deviation, 5, {"control 0": 5, "control 1": 0}, 400)
    assert outcomes["explained"] >= 400 * 0.9
    assert outcomes["helps"] <= 400 * 0.08


def test_a_harm_is_found() -> None:
    assert count_outcomes(0.05, -5, REGULARISED, 100)["hurts"] >= 90


def values(**scores: float) -> dict[str, Any]:
    """Five seeds and 200 rows of variants that are right on about that share of rows."""
    rng = np.random.default_rng(0)
    ease = rng.random(200)
    return {name: (ease + rng.normal(0, 0.02, (5, 200)) < score).astype(float) for name, score in scores.items()}


def test_the_strongest_control_is_named_and_p_is_that_of_the_harder_test() -> None:
    right = values(plain=0.5, weak=0.4, strong=0.7, armada=0.8)
    roles = {"plain": "undistilled", "weak": "control", "strong": "control", "armada": "teacher"}
    (verdict,) = reach_verdicts([(50, right)], roles)  # type: ignore[arg-type]
    assert isinstance(verdict, Verdict)
    assert (verdict.variant, verdict.labels, verdict.outcome, verdict.strongest) == ("armada", 50, "helps", "strong")
    assert verdict.control is not None
    assert verdict.p == pytest.approx(verdict.control.p) != pytest.approx(verdict.undistilled.p)
    (alone,) = reach_verdicts([(50, {name: right[name] for name in ("plain", "armada")})], roles)  # type: ignore[arg-type]
    assert (alone.outcome, alone.p, alone.strongest, alone.control) == ("uncontrolled", 1, None, None)


def test_holm_counts_all_teachers_and_numbers_of_labels() -> None:
    roles = {"plain": "undistilled", "strong": "control", "armada": "teacher"}
    groups = [(labels, values(plain=0.5, strong=0.5, armada=0.52)) for labels in (50, 100, 200)]
    (one,) = reach_verdicts(groups[:1], roles)  # type: ignore[arg-type]
    three = reach_verdicts(groups, roles)  # type: ignore[arg-type]
    assert [v.labels for v in three] == [50, 100, 200]
    assert three[0].p == pytest.approx(min(1, 3 * one.p))
    with pytest.raises(ValueError, match="undistilled"):
        reach_verdicts([(50, {"armada": groups[0][1]["armada"]})], roles)  # type: ignore[arg-type]


def test_rank_compares_all_with_one() -> None:
    ranked = rank(values(plain=0.5, weak=0.4, strong=0.7), "plain")
    assert list(ranked) == ["weak", "strong"]
    assert ranked["weak"][0].mean < 0 < ranked["strong"][0].mean
    assert ranked["strong"][1] == pytest.approx(min(1, 2 * ranked["strong"][0].p))


@pytest.mark.parametrize(
    ("options", "role"),
    [
        ({"loss": "none", "alpha": 0.0, "gamma": 0.0}, "undistilled"),
        ({"loss": "none", "alpha": 0.0}, "control"),
        ({"control": "shuffled-teacher"}, "control"),
        ({"control": "self-training"}, "control"),
        ({"loss": "none"}, "teacher"),
        ({}, "teacher"),
    ],
)
def test_roles(options: dict[str, Any], role: str) -> None:
    assert make_distill_config(shards=Path("x"), **options).method.role == role
