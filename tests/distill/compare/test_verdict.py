"""The verdict, on comparisons whose truth is known."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.compare.verdict import rank, reach_verdicts
from distill.config import Role, make_distill_config
from tests.distill.compare.simulated_comparison import (
    BASELINE,
    CONTROLS,
    FALSE,
    PLANTED,
    ROLES,
    TEACHER,
    Made,
    Scenario,
    simulate,
)

TIED = FALSE[-1]


def test_a_teacher_that_changes_no_row_is_told_apart_from_nothing() -> None:
    rows = np.random.default_rng(0).random((3, 13)).round()
    scores = dict.fromkeys(ROLES, rows)
    assert {verdict.outcome for verdict in reach_verdicts([(None, scores)], ROLES)} == {"none"}


@pytest.mark.parametrize("scenario", FALSE, ids=lambda each: each.name)
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_teacher_that_equals_its_hardest_rival_is_hardly_ever_said_to_help(scenario: Scenario, seeds: int) -> None:
    """At most 2.5 of 100, and three standard errors; benchmarks/verdict_level.py measures it more closely."""
    assert scenario.count(seeds, 40)["helps"] <= 40 * 0.025 + 3


def test_plain_fine_tuning_that_varies_no_more_than_the_teacher_is_not_told_apart_from_it() -> None:
    outcomes = TIED.count(5, 100)
    assert outcomes["none"] >= 100 * 0.95 - 5


def test_an_effect_of_three_standard_errors_is_found() -> None:
    """At least 80 of 100, and less two standard errors, where rows vary more than seeds."""
    assert PLANTED[0].count(5, 100)["helps"] >= 80 - 8


def test_a_gain_that_a_control_has_too_is_not_the_teachers() -> None:
    outcomes = Scenario("equal", {"undistilled": Made(-0.08), CONTROLS[0]: Made(), CONTROLS[1]: Made(-0.08)}).count(
        5, 60
    )
    assert outcomes["explained"] >= 54


def test_a_gain_that_a_baseline_has_too_is_called_matched() -> None:
    variants = {"undistilled": Made(-0.08), CONTROLS[0]: Made(-0.08), BASELINE: Made()}
    assert Scenario("equal baseline", variants, hardest=BASELINE).count(5, 60)["matched"] >= 54


def test_a_harm_is_found() -> None:
    variants = {"undistilled": Made(0.08), CONTROLS[0]: Made()}
    assert Scenario("worse", variants).count(5, 40)["hurts"] >= 36


def values(**scores: float) -> dict[str, Any]:
    """Five seeds and 200 rows of variants that are right on about that share of rows."""
    rng = np.random.default_rng(0)
    ease = rng.random(200)
    return {name: (ease + rng.normal(0, 0.02, (5, 200)) < score).astype(float) for name, score in scores.items()}


def test_all_rivals_must_be_beaten_and_the_one_of_the_largest_p_is_named() -> None:
    rng = np.random.default_rng(1)
    right = values(plain=0.5, quiet=0.7, armada=0.8, simple=0.4)
    noisy = np.clip(0.62 + np.array([-0.2, 0.2, -0.1, 0.12, 0.0]), 0, 1)
    right["noisy"] = (rng.random((5, 200)) < noisy[:, None]).astype(float)
    assert right["noisy"].mean() < right["quiet"].mean(), "a strongest control by score would be the quiet one"
    roles: dict[str, Role] = {"plain": "undistilled", "armada": "teacher", "simple": "baseline"}
    roles |= {"quiet": "control", "noisy": "control"}
    (verdict,) = reach_verdicts([(50, right)], roles)
    assert (verdict.variant, verdict.labels, verdict.outcome) == ("armada", 50, "explained")
    assert verdict.control is not None
    assert verdict.control.variant == "noisy"
    assert verdict.p == verdict.p_controls == pytest.approx(verdict.control.difference.p)
    assert verdict.baseline is not None
    assert verdict.baseline.variant == "simple"
    (calm,) = reach_verdicts([(50, {name: each for name, each in right.items() if name != "noisy"})], roles)
    assert (calm.outcome, calm.control and calm.control.variant) == ("helps", "quiet")
    (alone,) = reach_verdicts([(50, {name: right[name] for name in ("plain", "armada", "simple")})], roles)
    assert (alone.outcome, alone.p, alone.p_controls, alone.control) == ("uncontrolled", 1, 1, None)


def test_what_helps_has_no_interval_with_0_in_it() -> None:
    rng = np.random.default_rng(7)
    variants = {"undistilled": Made(), CONTROLS[0]: Made(), TEACHER: Made(0.04)}
    outcomes = Counter[str]()
    for _ in range(60):
        (verdict,) = reach_verdicts([(None, simulate(rng, variants, 4, 400))], ROLES)
        outcomes[verdict.outcome] += 1
        if verdict.outcome == "helps":
            assert verdict.control is not None
            assert min(verdict.undistilled.low, verdict.control.difference.low) > 0
        if verdict.outcome == "none":
            assert verdict.undistilled.low <= 0 <= verdict.undistilled.high
    assert min(outcomes["helps"], outcomes["none"]) >= 5


def test_holm_counts_all_teachers_and_numbers_of_labels() -> None:
    roles: dict[str, Role] = {"plain": "undistilled", "strong": "control", "armada": "teacher"}
    groups = [(labels, values(plain=0.5, strong=0.5, armada=0.52)) for labels in (50, 100, 200)]
    (one,) = reach_verdicts(groups[:1], roles)
    three = reach_verdicts(groups, roles)
    assert [v.labels for v in three] == [50, 100, 200]
    assert three[0].p == pytest.approx(min(1, 3 * one.p))
    with pytest.raises(ValueError, match="undistilled"):
        reach_verdicts([(50, {"armada": groups[0][1]["armada"]})], roles)


def test_rank_compares_all_with_one() -> None:
    ranked = rank(values(plain=0.5, weak=0.4, strong=0.7), "plain")
    assert list(ranked) == ["weak", "strong"]
    assert ranked["weak"][0].mean < 0 < ranked["strong"][0].mean
    assert ranked["strong"][1] == pytest.approx(min(1, 2 * ranked["strong"][0].p))


@pytest.mark.parametrize(
    ("options", "role"),
    [
        ({"loss": "none", "alpha": 0.0, "gamma": 0.0}, "undistilled"),
        ({"alpha": 0.0, "gamma": 1.0}, "control"),
        ({"control": "linear-probe"}, "control"),
        ({"control": "pseudo-labels"}, "baseline"),
        ({"control": "probe-distilled"}, "baseline"),
        ({"control": "shuffled-teacher"}, "control"),
        ({"control": "self-training"}, "control"),
        ({"loss": "none"}, "teacher"),
        ({}, "teacher"),
    ],
)
def test_roles(options: dict[str, Any], role: str) -> None:
    assert make_distill_config(shards=Path("x"), **options).method.role == role
