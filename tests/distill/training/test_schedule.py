"""What changes from step to step, against what it is said to be."""

from typing import Any

import pytest

from distill.training.schedule import (
    EVALUATION_STEPS,
    EvaluationSchedule,
    RateSchedule,
    TeacherSchedule,
    space_evaluations,
)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("none", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]), ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25])],
)
def test_the_learning_rate_rises_and_falls_as_told(decay: Any, expected: list[float]) -> None:
    schedule = RateSchedule(1 / 3, decay, 6)
    assert [schedule.at(step) for step in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("none", [1.0] * 6),
        ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", [1, (2 + 3**0.5) / 4, 0.75, 0.5, 0.25, (2 - 3**0.5) / 4]),
    ],
)
def test_the_teachers_weights_fall_as_told(decay: Any, expected: list[float]) -> None:
    schedule = TeacherSchedule(decay, 6)
    assert [schedule.at(step) for step in range(6)] == pytest.approx(expected)


def test_long_epochs_are_scored_at_even_distances_and_short_ones_at_their_end() -> None:
    n = EVALUATION_STEPS
    assert space_evaluations(2 * n - 1, 10, 32) is None
    assert space_evaluations(2 * n, 10, 32) == n
    assert space_evaluations(3 * n + 2, 10, 32) == n + 1
    assert space_evaluations(10 * n, 32 * 3 * n, 32) == -(-10 * n // 3), "no more rows are scored than trained on"
    schedule = EvaluationSchedule(every=4)
    assert [step for step in range(1, 13) if schedule.is_due(step, 12)] == [4, 8], "the end is scored in any case"
    assert not any(EvaluationSchedule().is_due(step, 12) for step in range(1, 13))
