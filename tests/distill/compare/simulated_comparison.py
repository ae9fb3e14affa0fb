"""Comparisons whose truth is known: rows that are right or wrong, with all that makes real ones vary.

A variant's latent score of a row is the sum of the row's ease, the variant's gain, what a seed's labels do to all
variants, what a seed does to this one, what the variant makes of a row with every seed, and a rest; it is right where
that is above 0. About .72 of the rows are right, two seeds of a quiet variant disagree on .14 of them, two variants on
.2. Gains and spreads are given as shares of rows: .01 is a point of accuracy.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from distill.compare.statistics import compare
from distill.compare.verdict import reach_verdicts
from distill.config import Role

Array = np.ndarray[Any, Any]

SEEDS, ROWS = 5, 1300
CONTROLS = tuple(f"control {i}" for i in range(7))
BASELINE, TEACHER = "baseline", "teacher"
ROLES: dict[str, Role] = {
    "undistilled": "undistilled",
    TEACHER: "teacher",
    BASELINE: "baseline",
    **dict.fromkeys(CONTROLS, "control"),
}
_EASE, _SHARED, _OWN, _REST = 0.7, 0.08, 0.35, 0.35
_SPREAD = sqrt(1 + _OWN**2 + _REST**2)
_RIGHT = NormalDist(0, _SPREAD).cdf(_EASE)


@dataclass(frozen=True, slots=True)
class Made:
    """A variant: its mean gain, and the standard deviation of its score over seeds.

    A variant that `fails` does so in a fifth of its seeds; it then lies 4 / 5 of what it loses below its mean, and a
    fifth of it above in the others.
    """

    gain: float = 0.0
    spread: float = 0.01
    fails: float = 0.0

    def draw_seeds(self, rng: np.random.Generator, seeds: int) -> Array:
        """Draw each seed's latent gain, (seeds,), so that the mean share of right rows is greater by `gain`."""
        lost = np.where(rng.random(seeds) < 0.2, -0.8, 0.2) * self.fails
        share = _RIGHT + self.gain + rng.normal(0, self.spread, seeds) + lost
        return np.array([NormalDist(0, _SPREAD).inv_cdf(each) - _EASE for each in share.clip(0.01, 0.99)])


def simulate(
    rng: np.random.Generator, variants: Mapping[str, Made], seeds: int = SEEDS, rows: int = ROWS
) -> dict[str, Array]:
    """Whether each variant is right, (seeds, rows)."""
    common = rng.normal(_EASE, 1, rows) + rng.normal(0, _SHARED, (seeds, 1))
    right = {}
    for name, made in variants.items():
        own = made.draw_seeds(rng, seeds)[:, None] + rng.normal(0, _OWN, rows)
        right[name] = np.asarray(common + own + _REST * rng.standard_normal((seeds, rows), np.float32) > 0, float)
    return right


def measure_error(rng: np.random.Generator, first: Made, second: Made, seeds: int, repeats: int = 200) -> float:
    """The standard error of the mean difference of two variants, as a share of rows: from its mean square."""
    drawn = (simulate(rng, {"a": first, "b": second}, seeds) for _ in range(repeats))
    return sqrt(np.mean([compare(right["a"], right["b"]).standard_error ** 2 for right in drawn]))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A made comparison. Its teacher lies `planted` standard errors above `hardest`: 0, and a "helps" is false."""

    name: str
    variants: Mapping[str, Made]
    hardest: str = CONTROLS[0]
    planted: float = 0.0
    teacher: Made = field(default_factory=Made)

    def plant(self, rng: np.random.Generator, seeds: int) -> dict[str, Made]:
        """Give all variants, the teacher's gain counted from that of the hardest."""
        rival = self.variants[self.hardest]
        more = self.planted * measure_error(rng, self.teacher, rival, seeds) if self.planted else 0.0
        return {**self.variants, TEACHER: Made(rival.gain + more, self.teacher.spread, self.teacher.fails)}

    def count(self, seeds: int, repeats: int, draw: int = 5) -> Counter[str]:
        """Count the outcomes of comparisons that are drawn anew each time."""
        rng = np.random.default_rng([draw, seeds])
        variants = self.plant(rng, seeds)
        return Counter(
            reach_verdicts([(100, simulate(rng, variants, seeds))], ROLES)[0].outcome for _ in range(repeats)
        )


def _surround(
    first: Made, quiet: tuple[float, ...], spread: float = 0.01, undistilled: float = -0.06
) -> dict[str, Made]:
    """Make plain fine-tuning, a first control, and further ones that lie at the gains `quiet`."""
    others = {name: Made(gain, spread) for name, gain in zip(CONTROLS[1:], quiet, strict=False)}
    return {"undistilled": Made(undistilled, spread), CONTROLS[0]: first, **others}


QUIET = (-0.03, -0.035, -0.04)
_TIED = {"undistilled": Made(), **dict.fromkeys(CONTROLS, Made())}

# The teacher equals its hardest rival in each.
FALSE = (
    *(
        Scenario(
            f"a control that varies by {spread:.1%} over seeds, quiet ones 3 to 4 points lower",
            _surround(Made(0.0, spread), QUIET),
        )
        for spread in (0.047, 0.071, 0.095)
    ),
    Scenario(
        "a teacher that varies by 7.1%, a quiet equal control", _surround(Made(), QUIET), teacher=Made(spread=0.071)
    ),
    Scenario(
        "a teacher and a control that vary by 4.7%", _surround(Made(0.0, 0.047), QUIET), teacher=Made(spread=0.047)
    ),
    Scenario("a quiet equal control, quiet others", _surround(Made(), QUIET)),
    Scenario("seeds vary by 0.3% only", _surround(Made(0.0, 0.003), QUIET, 0.003), teacher=Made(spread=0.003)),
    Scenario("a control that fails in a fifth of its seeds", _surround(Made(0.0, 0.01, 0.15), QUIET)),
    Scenario(
        "a baseline that varies by 7.1%",
        {**_surround(Made(-0.03), QUIET), BASELINE: Made(0.0, 0.071)},
        hardest=BASELINE,
    ),
    Scenario("everything equals plain fine-tuning", _TIED),
)


def _regularise(spread: float) -> dict[str, Made]:
    gains = (0.03, 0.0, -0.01, -0.01, -0.02, -0.05, -0.08)
    controls = {name: Made(gain, spread) for name, gain in zip(CONTROLS, gains, strict=True)}
    return {"undistilled": Made(0.0, spread), **controls}


def plant_effects(spread: float) -> tuple[Scenario, ...]:
    """Make comparisons of equal spreads, the teacher three standard errors above the hardest of the others."""
    tied = {"undistilled": Made(0.0, spread), **dict.fromkeys(CONTROLS, Made(0.0, spread))}
    teacher = Made(spread=spread)
    return (
        Scenario(f"one control is best, seeds vary by {spread:.1%}", _regularise(spread), planted=3, teacher=teacher),
        Scenario(f"all controls tie, seeds vary by {spread:.1%}", tied, planted=3, teacher=teacher),
    )


PLANTED = tuple(scenario for spread in (0.003, 0.008, 0.02) for scenario in plant_effects(spread))

# What no test over a few seeds can see: failures that have not happened yet.
UNSEEN = Scenario("a teacher that fails in a fifth of its seeds", _surround(Made(), QUIET), teacher=Made(fails=0.15))
