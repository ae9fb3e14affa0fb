"""Comparisons whose truth is known: rows that are right or wrong, with all that makes real ones vary."""

from collections.abc import Mapping
from math import exp, pi, sqrt
from typing import Any

import numpy as np

from distill.config import Role

Array = np.ndarray[Any, Any]

SEEDS, ROWS = 5, 1300
CONTROLS = tuple(f"control {i}" for i in range(7))
ROLES: dict[str, Role] = {"undistilled": "undistilled", "teacher": "teacher", **dict.fromkeys(CONTROLS, "control")}
_EASE, _SHARED, _OWN, _REST = 0.7, 0.08, 0.35, 0.35


def simulate(rng: np.random.Generator, gains: Mapping[str, float], seed_deviation: float) -> dict[str, Array]:
    """Whether each variant is right, (SEEDS, ROWS), where its latent score is above 0.

    The score is the sum of the row's ease, the variant's gain, what a seed's labels do to all variants, what a seed
    does to one, what a variant makes of a row with every seed, and a rest: about .72 of the rows are right, two seeds
    of a variant disagree on .14 of them, two variants on .2.
    """
    ease = rng.normal(_EASE, 1, ROWS)
    shared = rng.normal(0, _SHARED, (SEEDS, 1))
    return {
        name: np.asarray(
            ease
            + gain
            + shared
            + rng.normal(0, seed_deviation, (SEEDS, 1))
            + rng.normal(0, _OWN, ROWS)
            + rng.normal(0, _REST, (SEEDS, ROWS))
            > 0,
            float,
        )
        for name, gain in gains.items()
    }


def measure_error(rng: np.random.Generator, seed_deviation: float, repeats: int = 300) -> tuple[float, float]:
    """The standard error of the difference of two equal variants: of the share of right rows, and as a latent gain."""
    differences = []
    for _ in range(repeats):
        right = simulate(rng, {"a": 0.0, "b": 0.0}, seed_deviation)
        differences.append(right["a"].mean() - right["b"].mean())
    spread = sqrt(1 + _OWN**2 + _REST**2)
    slope = exp(-((_EASE / spread) ** 2) / 2) / sqrt(2 * pi) / spread
    error = float(np.std(differences))
    return error, error / slope
