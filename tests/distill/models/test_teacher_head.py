"""The teacher's head against what defines it: stationary points, closed forms, the same in few dimensions as in all."""

from typing import Any

import numpy as np
import pytest

from distill.models.teacher_head import (
    CHECK_EVERY,
    Fit,
    Ridge,
    RidgeLogistic,
    SmallNetwork,
    apply_layers,
    log_softmax,
    span_rows,
)

Array = np.ndarray[Any, Any]


def make_rows(count: int, width: int, classes: int = 3) -> tuple[Array, Array]:
    rng = np.random.default_rng(count + width)
    x = rng.normal(size=(count, width)).astype(np.float32) * np.linspace(3, 0.5, width, dtype=np.float32)
    return x, (x[:, :classes] + rng.gumbel(size=(count, classes))).argmax(axis=1)


@pytest.mark.parametrize(("count", "width"), [(12, 40), (40, 12)])
def test_coordinates_keep_all_products_of_the_standardised_rows(count: int, width: int) -> None:
    x, _ = make_rows(count, width)
    mean, std = x.mean(0), x.std(0)
    coordinates = span_rows(x, mean, std)
    rows = (x - mean) / std
    assert coordinates.z.shape[1] <= min(count, width)
    np.testing.assert_allclose(coordinates.z @ coordinates.z.T * coordinates.norm**2, rows @ rows.T, atol=1e-3)
    assert np.square(coordinates.z).sum(axis=1).mean() == pytest.approx(1, abs=1e-5)
    basis = coordinates.basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-4)


@pytest.mark.parametrize("fit", [RidgeLogistic(3, 0.01), Ridge(0.1), SmallNetwork(3, 0.1, 20, 0)])
def test_a_head_says_of_rows_what_its_layers_say_of_their_coordinates(fit: Fit) -> None:
    x, target = make_rows(12, 40)
    coordinates = span_rows(x, x.mean(0), x.std(0))
    layers = fit(coordinates.z, target)
    head = coordinates.unfold(layers)
    np.testing.assert_allclose(head.apply(x), apply_layers(layers, coordinates.z), atol=1e-4)
    np.testing.assert_allclose(head.cool(2.0).apply(x), head.apply(x) / 2, atol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_logistic_regression_ends_where_its_gradient_over_all_dimensions_is_zero(soft: bool) -> None:
    x, target = make_rows(30, 50)
    coordinates = span_rows(x, x.mean(0), x.std(0))
    wanted = np.eye(3)[target] * (0.7 if soft else 1.0) + (0.1 if soft else 0.0)
    strength = 0.02
    ((weight, bias),) = RidgeLogistic(3, strength)(coordinates.z, wanted if soft else target)
    rows = ((x - x.mean(0)) / x.std(0) / coordinates.norm).astype(np.float64)
    over_all = coordinates.basis.astype(np.float64) @ weight
    slope = (np.exp(log_softmax(rows @ over_all + bias)) - wanted) / len(rows)
    assert np.abs(rows.T @ slope + strength * over_all).max() < 1e-4
    assert np.abs(slope.sum(0)).max() < 1e-4


def test_ridge_regression_is_the_least_squares_of_the_rows_with_the_penalty_as_rows() -> None:
    x, _ = make_rows(30, 6)
    z, target = x.astype(np.float64), x[:, 0] * 2 + 1 + np.sin(np.arange(30))
    ((weight, bias),) = Ridge(0.3)(z, target)
    centred, y = z - z.mean(0), target - target.mean()
    padded = np.concatenate([centred, np.sqrt(0.3 * len(z)) * np.eye(6)])
    expected = np.linalg.lstsq(padded, np.concatenate([y, np.zeros(6)]), rcond=None)[0]
    np.testing.assert_allclose(weight[:, 0], expected, atol=1e-8)
    assert float((z @ weight + bias).mean()) == pytest.approx(target.mean())


def test_a_network_is_the_same_each_time_and_the_last_of_its_trace() -> None:
    x, target = make_rows(30, 20)
    z = span_rows(x, x.mean(0), x.std(0)).z
    fit = SmallNetwork(3, 1.0, 3 * CHECK_EVERY, 5)
    traced = fit.trace(z, target)
    assert len(traced) == 3
    for (a, b), (c, d) in zip(traced[-1], fit(z, target), strict=True):
        assert np.array_equal(a, c)
        assert np.array_equal(b, d)
