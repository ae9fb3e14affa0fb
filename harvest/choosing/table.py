"""A comparison of teachers as a table and sentences for a person."""

from harvest.choosing.measures import CascadeEstimate, Measures, Pair
from harvest.choosing.run import Comparison, Whole
from shared.console import print_result
from shared.printed_tables import print_table

OPTIONAL = ("ECE", "Brier", "no label")  # of teachers that tell probabilities


def print_teachers(comparison: Comparison) -> None:
    """Print the table, how the teachers differ, and which to take."""
    from rich.markup import escape
    from rich.table import Table

    where = "all splits" if comparison.split is None else comparison.split
    table = Table(title=escape(f"{comparison.rows:,} rows of {where} that all were asked about"))
    lines = [_describe_teacher(name, one, comparison.whole[name]) for name, one in comparison.measures.items()]
    headings = [name for name in lines[0] if name not in OPTIONAL or any(line[name] for line in lines)]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "teacher" else "right")
    for line in lines:
        table.add_row(*(escape(line[heading]) for heading in headings))
    print_table(table)
    if comparison.rule is not None:
        print_result(
            f"right: by {comparison.rule}, of the rows whose answer is known, with a 95 % interval; one without an "
            "answer is not right"
        )
    print_result(*map(_describe_pair, comparison.pairs), *map(_describe_cascade, comparison.cascades))
    print_result(*comparison.advice)


def _describe_teacher(name: str, one: Measures, whole: Whole) -> dict[str, str]:
    minutes = "unknown" if whole.minutes is None else "< 0.1" if whole.minutes < 0.1 else f"{whole.minutes:,.1f}"
    return {
        "teacher": name,
        "right": "unknown" if one.share is None else f"{one.share:.1%} ({one.low:.1%} to {one.high:.1%})",
        "no answer": f"{one.failed:,}",
        "ECE": _show_number(one.calibration_error),
        "Brier": _show_number(one.brier),
        "no label": _show_number(one.no_label),
        "these rows": "unknown" if one.cost_usd is None else f"${one.cost_usd:,.4f}",
        "whole task": "unknown" if whole.cost_usd is None else f"${whole.cost_usd.likely:,.4f}",
        "minutes": minutes,
    }


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
