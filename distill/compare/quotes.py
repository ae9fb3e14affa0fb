"""Sentences that a paper can quote: what was measured and how, and no more than the verdict claims."""

from collections.abc import Mapping
from typing import Any

from distill.compare.formats import format_range, format_scores, say_p
from distill.compare.result_tables import find_variants
from distill.compare.sentences import name_labels, say_frozen

_CLAIMS = {
    "helps": "It also beat {beaten}: {p} for all of them together{hardest}.",
    "matched": "It also beat every control ({p_controls}), but was not shown to beat every baseline ({p}){hardest}.",
    "explained": "It was not shown to beat every control ({p_controls}){hardest}, so this gain is not attributed to "
    "the teacher.",
    "uncontrolled": "No control was trained, so this gain is not attributed to the teacher.",
    "none": "No effect of the teacher's answers is shown.",
    "hurts": "With the teacher's answers the student was worse.",
}


def quote_verdict(result: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    """Write a verdict with means, deviations, n, intervals and tests. Only the outcome decides what is claimed."""
    wording, variants = result["wording"], find_variants(result, verdict["labels"])
    base = next(v for v in variants.values() if v["role"] == "undistilled")
    amount, frozen = name_labels(wording, verdict["labels"]), result["frozen_layers"]
    student = f"the student, its {say_frozen(frozen)}," if frozen else "the student"
    own = format_scores(variants[verdict["variant"]]["scores"])
    tests = len(result["verdicts"])
    corrected = f", Holm-corrected over {tests} tests" if tests > 1 else ""
    return (
        f"On {result['task']} with {amount}, {student} that learns from {result['teacher']}'s answers "
        f"({verdict['variant']}) reaches {own} {result['metric']} on {_name_rows(result)} (mean ± SD, "
        f"n = {len(result['seeds'])} seeds), and {wording['undistilled']} {format_scores(base['scores'])}: a "
        f"difference of {_quote_interval(verdict['undistilled'])}, two-sided {say_p(verdict['p_undistilled'])}"
        f"{corrected}, in a two-way random-effects analysis of seeds and test rows. {_claim(verdict)}"
    )


def _name_rows(result: Mapping[str, Any]) -> str:
    count, origin = f"{result['rows']['test']:,}", result["test_from"]
    return f"{count} test rows" if origin in (None, "test") else f"{count} rows held out from {origin}"


def _claim(verdict: Mapping[str, Any]) -> str:
    hardest = [
        f"{rival['variant']}, {_quote_interval(rival['difference'])}"
        for rival in (verdict["control"], verdict["baseline"])
        if rival is not None
    ]
    if verdict["outcome"] == "explained":
        hardest = hardest[:1]
    return _CLAIMS[verdict["outcome"]].format(
        beaten="every control" if verdict["baseline"] is None else "every control and every baseline",
        p=f"one-sided {say_p(verdict['p'])}",
        p_controls=f"one-sided {say_p(verdict['p_controls'])}",
        hardest=f"; hardest to beat: {'; '.join(hardest)}" if hardest else "",
    )


def _quote_interval(difference: Mapping[str, float]) -> str:
    return f"{difference['mean']:+.3f} (95% CI {format_range(difference)})"
