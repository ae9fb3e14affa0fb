"""Whether the teacher helped: it must beat plain fine-tuning, every control, and every baseline."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import numpy as np

from distill.compare.statistics import LEVEL, Difference, compare
from distill.config import Role
from shared.p_values import correct_holm

Array = np.ndarray[Any, Any]
Outcome = Literal["helps", "matched", "explained", "uncontrolled", "none", "hurts"]


@dataclass(frozen=True, slots=True)
class Rival:
    """A control or a baseline, and how much better the teacher variant is."""

    variant: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one teacher variant came to with one number of labels (None: all).

    helps         better than undistilled, than every control, and than every baseline
    matched       better than undistilled and than every control, but not shown to be better than every baseline: the
                  teacher's answers are of use, and a simpler use of them may be as good
    explained     better than undistilled, but not shown to be better than every control: no effect of the teacher
    uncontrolled  better than undistilled, and there is no control that could tell why
    none          not shown to differ from undistilled
    hurts         worse than undistilled

    `control` and `baseline` are those that are hardest to beat: of the largest p, which a rival with a large spread
    over seeds may have though others score higher. `p` is the largest over undistilled, all controls and all baselines,
    since all must be beaten (an intersection-union test, which needs no correction inside); `p_controls` leaves the
    baselines out. Both are one-sided and 1 without controls; `p_undistilled` is two-sided. All three are Holm's, over
    all teacher variants and numbers of labels of the comparison.
    """

    variant: str
    labels: int | None
    outcome: Outcome
    p: float
    p_controls: float
    p_undistilled: float
    undistilled: Difference
    control: Rival | None
    baseline: Rival | None


@dataclass(frozen=True, slots=True)
class _Tested:
    variant: str
    labels: int | None
    undistilled: Difference
    control: Rival | None
    baseline: Rival | None

    def find_largest(self, *, baselines: bool) -> float:
        """Find the largest p of what must be beaten."""
        if self.control is None:
            return 1.0
        others = [self.baseline.difference.p] if baselines and self.baseline is not None else []
        return max(self.undistilled.p, self.control.difference.p, *others)


def reach_verdicts(
    groups: Iterable[tuple[int | None, Mapping[str, Array]]], roles: Mapping[str, Role], span: float = inf
) -> list[Verdict]:
    """Reach a verdict on each teacher variant of each group.

    A group is a number of labels, and row scores (seeds, rows) by variant; `span` is the largest difference that two
    scores can have. Raises ValueError where a group has no undistilled variant.
    """
    found = [_test(name, labels, values, roles, span) for labels, values in groups for name in _list(values, roles)]
    all_p = correct_holm([each.find_largest(baselines=True) for each in found])
    controls_p = correct_holm([each.find_largest(baselines=False) for each in found])
    alone = correct_holm([2 * min(each.undistilled.p, 1 - each.undistilled.p) for each in found])
    return [
        Verdict(
            each.variant,
            each.labels,
            _decide(each, p, p_controls, p_undistilled),
            p,
            p_controls,
            p_undistilled,
            each.undistilled,
            each.control,
            each.baseline,
        )
        for each, p, p_controls, p_undistilled in zip(found, all_p, controls_p, alone, strict=True)
    ]


def _list(values: Mapping[str, Array], roles: Mapping[str, Role], role: Role = "teacher") -> list[str]:
    return [name for name in values if roles[name] == role]


def _test(
    name: str, labels: int | None, values: Mapping[str, Array], roles: Mapping[str, Role], span: float
) -> _Tested:
    undistilled = _list(values, roles, "undistilled")
    if not undistilled:
        raise ValueError(f"no variant among {', '.join(values)} is undistilled")
    return _Tested(
        name,
        labels,
        compare(values[name], values[undistilled[0]], span),
        find_hardest(compare_with_rivals(name, values, _list(values, roles, "control"), span)),
        find_hardest(compare_with_rivals(name, values, _list(values, roles, "baseline"), span)),
    )


def compare_with_rivals(
    name: str, values: Mapping[str, Array], rivals: Sequence[str], span: float = inf
) -> dict[str, Difference]:
    """Test one variant against each of its rivals."""
    return {rival: compare(values[name], values[rival], span) for rival in rivals}


def find_hardest(differences: Mapping[str, Difference]) -> Rival | None:
    """Find the rival that is hardest to beat, by its p and then by the difference; None where there is none."""
    name = max(differences, key=lambda rival: (differences[rival].p, -differences[rival].mean), default=None)
    return None if name is None else Rival(name, differences[name])


def _decide(tested: _Tested, p: float, p_controls: float, p_undistilled: float) -> Outcome:
    if p < LEVEL:
        return "helps"
    if p_undistilled >= 2 * LEVEL:
        return "none"
    if tested.undistilled.mean < 0:
        return "hurts"
    if tested.control is None:
        return "uncontrolled"
    return "matched" if p_controls < LEVEL else "explained"


def rank(values: Mapping[str, Array], undistilled: str, span: float = inf) -> dict[str, tuple[Difference, float]]:
    """Test every other variant against one, with Holm's one-sided p over them."""
    differences = {name: compare(values[name], values[undistilled], span) for name in values if name != undistilled}
    adjusted = correct_holm([difference.p for difference in differences.values()])
    return {name: (d, p) for (name, d), p in zip(differences.items(), adjusted, strict=True)}
