"""Which head is chosen: what is likelier on held-out rows, and never more certain than that bears out."""

from typing import Any

import numpy as np
import pytest

from distill.models.head_selection import (
    FOLDS,
    LEAST_ROWS,
    MANY_ROWS,
    OWN,
    UNTRIED,
    assign_folds,
    choose_head,
    cross_fit,
    find_temperature,
    measure_loss,
)
from distill.models.teacher_head import Coordinates, RidgeLogistic, span_rows

Array = np.ndarray[Any, Any]


def make_signal(target: Array, strength: float, width: int = 30) -> Coordinates:
    rng = np.random.default_rng(len(target))
    x = rng.normal(size=(len(target), width)).astype(np.float32)
    x[:, 0] += strength * target
    return span_rows(x, x.mean(0), x.std(0))


def make_target(count: int) -> Array:
    return np.random.default_rng(1).integers(0, 2, count)


def test_each_fold_has_its_share_of_each_class() -> None:
    strata = np.array([0] * 50 + [1] * 10)
    folds = assign_folds(strata, 3)
    assert [[int(((folds == fold) & (strata == s)).sum()) for s in (0, 1)] for fold in range(FOLDS)] == [[10, 2]] * 5
    assert not np.array_equal(folds, assign_folds(strata, 4))


def test_what_a_fold_is_told_does_not_depend_on_its_own_labels() -> None:
    target = make_target(40)
    z, folds = make_signal(target, 2.0).z, assign_folds(target, 0)
    inside = folds == 2
    changed = np.where(inside, 1 - target, target)
    before, after = (cross_fit(RidgeLogistic(2, 0.01), z, y, 2, folds) for y in (target, changed))
    assert np.array_equal(before[inside], after[inside])
    assert not np.array_equal(before[~inside], after[~inside])


def test_a_signal_of_noise_gives_little_more_than_how_frequent_the_labels_are() -> None:
    target = make_target(60)
    noise = choose_head({"vectors": make_signal(target, 0.0)}, None, target, 2, 0)
    told = choose_head({"vectors": make_signal(target, 4.0)}, None, target, 2, 0)
    assert measure_loss(noise.held_out, target, "softmax") < np.log(2) + 0.03
    assert measure_loss(told.held_out, target, "softmax") < 0.4
    assert told.description["strength"] < noise.description["strength"]


def test_the_likeliest_of_all_signals_and_of_the_teachers_own_distribution_is_chosen() -> None:
    target = make_target(60)
    signals = {"bad": make_signal(target, 0.0, 31), "good": make_signal(target, 4.0)}
    right, unsure = np.log(np.where(np.eye(2)[target] == 1, 0.95, 0.05)), np.full((60, 2), np.log(0.5))
    assert choose_head(signals, None, target, 2, 0).signal == "good"
    assert choose_head(signals, unsure, target, 2, 0).signal == "good"
    own = choose_head(signals, right, target, 2, 0)
    assert (own.signal, own.head, own.description["kind"]) == (OWN, None, OWN)
    assert set(own.description["held_out_loss"]) == {OWN, "ridge on bad", "ridge on good"}


def test_many_labels_have_a_network_tried_and_a_temperature() -> None:
    target = make_target(MANY_ROWS)
    chosen = choose_head({"vectors": make_signal(target, 3.0)}, None, target, 2, 0)
    assert set(chosen.description["held_out_loss"]) == {"ridge on vectors", "network on vectors"}
    assert 0.25 < chosen.description["temperature"] < 4
    alone = choose_head({"vectors": make_signal(target, 3.0)}, None, target, 2, 0, networks=False)
    assert set(alone.description["held_out_loss"]) == {"ridge on vectors"}


def test_without_rows_enough_nothing_is_chosen() -> None:
    target = make_target(LEAST_ROWS - 1)
    signals = {"vectors": make_signal(target, 4.0)}
    assert choose_head(signals, np.zeros((len(target), 2)), target, 2, 0).signal == OWN
    chosen = choose_head(signals, None, target, 2, 0)
    assert (chosen.description["strength"], chosen.description["folds"]) == (UNTRIED, 0)


def test_values_are_regressed() -> None:
    target = np.random.default_rng(0).normal(size=50).astype(np.float32)
    chosen = choose_head({"vectors": make_signal(target, 3.0)}, None, target, 1, 0)
    assert chosen.held_out.shape == (50, 1)
    assert measure_loss(chosen.held_out, target, "identity") < 0.5 * target.var()


def test_a_head_that_is_too_sure_is_cooled() -> None:
    target = make_target(400)
    right = np.random.default_rng(2).random(400) < 0.8
    logits = np.where(np.eye(2)[np.where(right, target, 1 - target)] == 1, 4.0, 0.0)
    expected = 4 / np.log(right.mean() / (1 - right.mean()))
    assert find_temperature(logits, target) == pytest.approx(expected, rel=1e-3)
