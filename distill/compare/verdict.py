"""Whether the teacher helped: it must beat plain fine-tuning, and the strongest control as well."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distill.compare.statistics import LEVEL, Difference, compare, correct_holm
from distill.config import Role

Array = np.ndarray[Any, Any]
Outcome = Literal["helps", "explained", "uncontrolled", "none", "hurts"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one teacher variant came to with one number of labels (None: all).

    helps         better than undistilled, and than `strongest`, the control with the highest score
    explained     better than undistilled, but not shown to be better than that control: no effect of the teacher
    uncontrolled  better than undistilled, and there is no control that could tell why
    none          not shown to differ from undistilled
    hurts         worse than undistilled

    `p` and `p_undistilled` are Holm's, over all teacher variants and numbers of labels of the comparison. The first is
    the larger one of the two tests, each in the one direction that a help has, since both must hold; the second is
    two-sided. A comparison without controls has no `strongest`, and its `p` is 1.
    """

    variant: str
    labels: int | None
    outcome: Outcome
    p: float
    p_undistilled: float
    undistilled: Difference
    strongest: str | None
    control: Difference | None


def reach_verdicts(
    groups: Iterable[tuple[int | None, Mapping[str, Array]]], roles: Mapping[str, Role]
) -> list[Verdict]:
    """Reach a verdict on each teacher variant of each group.

    A group is a number of labels, and row scores (seeds, rows) by variant.

    The strongest control is chosen on the very rows that are reported, which can only favour it. Raises ValueError
    where a group has no undistilled variant.
    """
    found = []
    for labels, values in groups:
        baseline = [name for name in values if roles[name] == "undistilled"]
        if not baseline:
            raise ValueError(f"no variant among {', '.join(values)} is undistilled")
        controls = [name for name in values if roles[name] == "control"]
        strongest = max(controls, key=lambda name: values[name].mean(), default=None)
        for name in (name for name in values if roles[name] == "teacher"):
            undistilled = compare(values[name], values[baseline[0]])
            control = None if strongest is None else compare(values[name], values[strongest])
            found.append((name, labels, undistilled, strongest, control))
    both = correct_holm([1.0 if c is None else max(u.p, c.p) for _, _, u, _, c in found])
    alone = correct_holm([2 * min(u.p, 1 - u.p) for _, _, u, _, _ in found])
    return [
        Verdict(name, labels, _decide(p, q, undistilled, control), p, q, undistilled, strongest, control)
        for (name, labels, undistilled, strongest, control), p, q in zip(found, both, alone, strict=True)
    ]


def _decide(p: float, p_undistilled: float, undistilled: Difference, control: Difference | None) -> Outcome:
    if p < LEVEL:
        return "helps"
    if p_undistilled < LEVEL:
        if undistilled.mean < 0:
            return "hurts"
        return "uncontrolled" if control is None else "explained"
    return "none"


def rank(values: Mapping[str, Array], baseline: str) -> dict[str, tuple[Difference, float]]:
    """Test every other variant against one, with Holm's p over them."""
    names: Sequence[str] = [name for name in values if name != baseline]
    differences = [compare(values[name], values[baseline]) for name in names]
    adjusted = correct_holm([difference.p for difference in differences])
    return {name: (d, p) for name, d, p in zip(names, differences, adjusted, strict=True)}
