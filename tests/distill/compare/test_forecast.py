"""What is left to train, from what was trained."""

from pathlib import Path

import pytest

from distill.compare.forecast import count_steps, estimate_seconds, forecast_training
from distill.compare.plan import Comparison

VARIANTS = {"undistilled": {"undistilled": True}, "armada": {"loss": "euclid"}}


def plan(**changes: object) -> Comparison:
    common = {"epochs": 3, "batch_size": 8}
    return Comparison(shards=(Path("x"),), name="p", common=common, variants=VARIANTS, **{"seeds": (0, 1), **changes})  # type: ignore[arg-type]


def test_seconds_are_those_of_the_same_variant_or_of_all_that_are_finished() -> None:
    (undistilled, armada, *_), again = plan().list_cells(), plan(seeds=(2,)).list_cells()
    assert estimate_seconds(again, [(undistilled, 10.0), (armada, 30.0)]) == 10 + 30
    assert estimate_seconds(again, [(undistilled, 10.0)]) == 10 + 10
    assert estimate_seconds(again, [(undistilled, 10.0), (undistilled, 20.0), (armada, 30.0)]) == 15 + 30
    assert estimate_seconds(again, []) is None
    assert estimate_seconds([], []) == 0


def test_without_a_finished_cell_steps_are_known_and_seconds_are_not(tmp_path: Path) -> None:
    comparison = plan()
    assert count_steps(comparison.list_cells()[0], 17) == 3 * 3
    forecast = forecast_training(comparison, tmp_path, 17)
    assert (forecast.cells, forecast.finished, len(forecast.left)) == (4, 0, 4)
    assert (forecast.student_steps, forecast.seconds) == (4 * 9, None)


@pytest.mark.parametrize("rows", [0, 1, 8, 9])
def test_a_last_batch_that_is_not_full_is_a_step(rows: int) -> None:
    assert count_steps(plan().list_cells()[0], rows) == 3 * ((rows + 7) // 8)
