"""What changes from step to step, against what it is said to be."""

from typing import Any

import pytest

from distill.training.schedule import RateSchedule, TeacherSchedule


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
