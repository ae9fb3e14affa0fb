"""How good one teacher's answers are, how those of two differ, and what a cascade of the two would come to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harvest.choosing.rows import Array, TeacherAnswers
from harvest.looking.agreement import find_wilson_interval
from shared.p_values import correct_holm

BINS = 10
_POWER = 0.8416  # of 80 %
_LEVEL = 1.9600  # of 5 %, two-sided


@dataclass(frozen=True, slots=True)
class Measures:
    """What one teacher's answers to the common rows come to.

    `share` of the `known` rows is right, `low` to `high` its 95 % interval; a row without a whole answer is not right.
    `calibration_error` is the expected calibration error (Guo et al. 2017, ten bins) and `brier` the Brier score, from
    0 to 2, of the labels' probabilities without the mass on no label, `no_label` in the mean; None where there are no
    probabilities, or all are 0 and 1. `cost_usd` is None where the price of a row is not known.
    """

    rows: int
    known: int
    right: int
    share: float | None
    low: float | None
    high: float | None
    failed: int
    calibration_error: float | None
    brier: float | None
    no_label: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """How two teachers' answers differ. They say the same in the share `same` of the rows that both answer.

    Of the rows whose right answer is known the first alone is right about `only_first`, the second alone about
    `only_second`, and `p` is how probable so uneven a split is where neither is better (McNemar's exact test, 1947),
    corrected for how many pairs there are (Holm 1979). About `rows_needed` rows would show the difference seen, in four
    cases of five; None where none was seen.
    """

    first: str
    second: str
    same: float | None
    only_first: int
    only_second: int
    p: float
    rows_needed: int | None


@dataclass(frozen=True, slots=True)
class CascadeEstimate:
    """What comes of asking `dear` only where `cheap` is unsure: in the share `escalated` of the rows.

    `share` is right, `low` to `high`; `cost_usd` is that of the whole task, None where a price is not known.
    """

    cheap: str
    dear: str
    escalated: float
    share: float
    low: float
    high: float
    cost_usd: float | None


def measure_teacher(rows: TeacherAnswers) -> Measures:
    """Measure one teacher's answers."""
    known, right = int(rows.known.sum()), int((rows.right & rows.known).sum())
    low, high = find_wilson_interval(right, known)
    error, brier = _measure_calibration(rows)
    scored = np.isfinite(rows.residual) & rows.whole
    is_priced = bool(np.isfinite(rows.cost_usd).all())
    return Measures(
        rows=len(rows),
        known=known,
        right=right,
        share=right / known if known else None,
        low=low,
        high=high,
        failed=int((~rows.whole).sum()),
        calibration_error=error,
        brier=brier,
        no_label=float(rows.residual[scored].mean()) if scored.any() and rows.probabilities is not None else None,
        cost_usd=math.fsum(rows.cost_usd) if is_priced else None,
    )


def _measure_calibration(rows: TeacherAnswers) -> tuple[float | None, float | None]:
    if rows.probabilities is None:
        return None, None
    used = rows.known & (rows.label >= 0) & np.isfinite(rows.probabilities).all(axis=1)
    probabilities, label = rows.probabilities[used], rows.label[used]
    if not len(label) or (probabilities.max(axis=1) > 1 - 1e-9).all():  # one vote a row: no confidence is told
        return None, None
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    error = sum(
        float((bins == one).mean() * abs(right[bins == one].mean() - confidence[bins == one].mean()))
        for one in np.unique(bins)
    )
    truth = np.eye(probabilities.shape[1])[label]
    return error, float(((probabilities - truth) ** 2).sum(axis=1).mean())


def compare_pairs(names: Sequence[str], rows: Sequence[TeacherAnswers]) -> list[Pair]:
    """Compare every two teachers, in their order."""
    places = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows))]
    corrected = correct_holm([find_mcnemar_p(*_count_discordant(rows[i], rows[j])) for i, j in places])
    return [_make_pair(names[i], names[j], rows[i], rows[j], p) for (i, j), p in zip(places, corrected, strict=True)]


def _make_pair(first: str, second: str, a: TeacherAnswers, b: TeacherAnswers, p: float) -> Pair:
    both = a.whole & b.whole
    same = float(np.mean(a.said[both] == b.said[both])) if both.any() else None
    only_first, only_second = _count_discordant(a, b)
    known = int(a.known.sum())
    return Pair(first, second, same, only_first, only_second, p, count_rows_needed(only_first, only_second, known))


def _count_discordant(a: TeacherAnswers, b: TeacherAnswers) -> tuple[int, int]:
    return int((a.right & ~b.right & a.known).sum()), int((b.right & ~a.right & b.known).sum())


def find_mcnemar_p(only_first: int, only_second: int) -> float:
    """McNemar's exact test: how probable so uneven a split of the rows on which two differ is, were both as good."""
    total, fewer = only_first + only_second, min(only_first, only_second)
    if not total:
        return 1.0
    logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - total * math.log(2)) for log in logs))


def count_rows_needed(only_first: int, only_second: int, known: int) -> int | None:
    """About how many rows show the difference seen, at 5 %, in four cases of five (Connor, Biometrics 43, 1987)."""
    if only_first == only_second or not known:
        return None
    discordant, difference = (only_first + only_second) / known, abs(only_first - only_second) / known
    root = _LEVEL * math.sqrt(discordant) + _POWER * math.sqrt(max(0.0, discordant - difference**2))
    return math.ceil((root / difference) ** 2)


def estimate_cascade(
    names: tuple[str, str],
    cheap: TeacherAnswers,
    dear: TeacherAnswers,
    below: float,
    costs: tuple[float | None, float | None],
) -> CascadeEstimate | None:
    """Estimate a cascade from the rows that both answered; None where the cheap one tells no probabilities."""
    known = int(cheap.known.sum())
    if cheap.probabilities is None or not known:
        return None
    unsure = find_unsure_rows(cheap, below)
    right = int((np.where(unsure, dear.right, cheap.right) & cheap.known).sum())
    low, high = find_wilson_interval(right, known)
    assert low is not None
    assert high is not None
    escalated = float(unsure.mean())
    first, second = costs
    cost = None if first is None or second is None else first + escalated * second
    return CascadeEstimate(*names, escalated, right / known, low, high, cost)


def find_unsure_rows(rows: TeacherAnswers, below: float) -> Array:
    """Mask the rows without a whole answer, and those of which it is less sure than `below`."""
    return np.asarray(~(rows.whole & (rows.sure >= below)))
