"""A comparison at the terminal: a table for each number of labels, the verdicts, and where the rest is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.compare.formats import format_interval, format_scores
from distill.compare.plan import name_cell
from distill.compare.run import REPORT
from distill.compare.runner import STUDENT
from distill.compare.sentences import name_labels
from distill.runs.names import CELLS
from shared.console import results
from shared.printed_tables import print_table


def print_comparison(folder: Path, result: Mapping[str, Any]) -> None:
    """Print what `run_comparison` returns, to be read by a person, on standard output."""
    for group in result["groups"]:
        print_group(result, group)
    lines = [*result["sentences"], f"report: {folder / REPORT}"]
    student = find_kept_student(folder, result)
    if student is not None:
        lines.append(f"student: {student}")
    for line in lines:
        results.print(line, markup=False, soft_wrap=True)


def print_group(result: Mapping[str, Any], group: Mapping[str, Any]) -> None:
    """Print the table of one number of labels: scores are means over seeds, ± their standard deviation."""
    from rich.markup import escape
    from rich.table import Table

    labels = name_labels(result["wording"], group["labels"])
    baseline = next(one for one in group["variants"] if one["role"] == "undistilled")
    table = Table(title=escape(f"{result['task']}, teacher {result['teacher']}, {labels}"))
    table.add_column("variant", no_wrap=True)
    for heading in (f"test {result['metric']}", f"against {baseline['variant']}", "seeds", "steps", "seconds"):
        table.add_column(heading, justify="right")
    for one in group["variants"]:
        table.add_row(
            one["variant"],
            format_scores(one["scores"]),
            "" if one is baseline else f"{one['score'] - baseline['score']:+.3f}",
            str(len(one["scores"])),
            f"{result['student_steps']:,}",
            f"{one['seconds']:.0f}",
        )
    print_table(table)
    if group["measures"]:
        print_measures(group["measures"], baseline["variant"])


def print_measures(lines: Sequence[Mapping[str, Any]], baseline: str) -> None:
    """Print what the test rows say of each variant, with 95% intervals."""
    from rich.table import Table

    table = Table(title="test rows: means, differences, and their 95% intervals")
    for heading in ("measure", "variant", "mean", f"against {baseline}"):
        table.add_column(heading, no_wrap=True)
    for name in dict.fromkeys(line["measure"] for line in lines):
        for line in lines:
            if line["measure"] == name:
                table.add_row(name, line["variant"], format_interval(line), format_interval(line["against"], "+"))
        table.add_section()
    print_table(table)


def find_kept_student(folder: Path, result: Mapping[str, Any]) -> Path | None:
    """Find the folder of the first teacher variant's first student, by the most labels; None where none was kept."""
    for group in reversed(result["groups"]):
        for one in group["variants"]:
            choice = max(range(len(one["choice_scores"])), key=one["choice_scores"].__getitem__)
            name = name_cell(one["variant"], group["labels"], choice, result["seeds"][0])
            if one["role"] == "teacher" and (folder / CELLS / name / STUDENT).is_dir():
                return folder / CELLS / name / STUDENT
    return None
