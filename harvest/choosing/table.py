"""A comparison of teachers as a table and sentences for a person."""

from harvest.choosing.measures import CascadeEstimate, Measures, Pair
from harvest.choosing.run import TeacherComparison, Whole
from shared.console import print_result
from shared.printed_tables import print_rows

HEADINGS = ("teacher", "right", "no answer", "ECE", "Brier", "no label", "these rows", "whole task", "minutes")
OPTIONAL = ("ECE", "Brier", "no label")  # of teachers that tell probabilities


def print_teacher_comparison(comparison: TeacherComparison) -> None:
    """Print the table, how the teachers differ, and which to take."""
    where = "all splits" if comparison.split is None else comparison.split
    title = f"{comparison.rows:,} rows of {where} that all were asked about"
    rows = [_describe_teacher(name, one, comparison.whole[name]) for name, one in comparison.measures.items()]
    print_rows(HEADINGS, rows, title=title, optional=OPTIONAL)
    if comparison.rule is not None:
        print_result(
            f"right: by {comparison.rule}, of the rows whose answer is known, with a 95 % interval; one without an "
            "answer is not right"
        )
    print_result(*map(_describe_pair, comparison.pairs), *map(_describe_cascade, comparison.cascades))
    print_result(*comparison.advice)


def _describe_teacher(name: str, one: Measures, whole: Whole) -> tuple[str, ...]:
    minutes = "unknown" if whole.minutes is None else "< 0.1" if whole.minutes < 0.1 else f"{whole.minutes:,.1f}"
    return (
        name,
        "unknown" if one.share is None else f"{one.share:.1%} ({one.low:.1%} to {one.high:.1%})",
        f"{one.failed:,}",
        _show_number(one.calibration_error),
        _show_number(one.brier),
        _show_number(one.no_label),
        "unknown" if one.cost_usd is None else f"${one.cost_usd:,.4f}",
        "unknown" if whole.cost_usd is None else f"${whole.cost_usd.likely:,.4f}",
        minutes,
    )


def _show_number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _describe_pair(pair: Pair) -> str:
    same = "no row is answered by both" if pair.same is None else f"say the same of {pair.same:.1%} of the rows"
    return (
        f"{pair.first} and {pair.second} {same}; right alone: {pair.first} {pair.only_first:,}, {pair.second} "
        f"{pair.only_second:,} (p = {pair.p:.2g})"
    )


def _describe_cascade(one: CascadeEstimate) -> str:
    cost = "unknown dollars" if one.cost_usd is None else f"${one.cost_usd:,.4f}"
    return (
        f"{one.cheap}, and {one.dear} where it is unsure ({one.escalated:.0%} of rows): {one.share:.1%} right "
        f"({one.low:.1%} to {one.high:.1%}), {cost} for the whole task"
    )
