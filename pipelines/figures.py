"""The figures of a table recipe: means, deviations and numbers of seeds beside published scores.

All scores are in hundredths of the metric, as papers print them.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import orjson

from pipelines.table import Published, Table
from shared.console import results
from shared.disk import replace_file
from shared.printed_tables import print_table

JSON, CSV, MARKDOWN = "table.json", "table.csv", "table.md"
COLUMNS = ("task", "metric", "student", "labels", "variant", "published", "dev", "held out", "seeds", "verdict")
NOTE = (
    "Scores are hundredths of the metric: means over the seeds, ± their standard deviation. dev: the validation rows, "
    "which chose the epoch and the candidate, as in the paper; such a score is too high. held out: rows that chose "
    "nothing. verdict: of the held-out rows, against plain fine-tuning and the controls; each task and student is "
    "tested for itself, so that among many of them some are said to help or to harm by chance."
)


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean of some scores, their standard deviation (None for one score), and how many there are."""

    mean: float
    deviation: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Line:
    """One variant of one task and student, with one number of labels (None: all).

    `published` is what others report, on the dev set that chose. `dev` is scored on the rows that chose, and `test` on
    rows that chose nothing; `verdict` is that of the comparison, None for what is not a teacher's variant.
    """

    task: str
    metric: str
    student: str
    labels: int | None
    variant: str
    role: str
    published: float | None
    dev: Summary
    test: Summary
    verdict: str | None


def make_lines(table: Table, comparisons: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Make the lines of a table; `comparisons` are the results of its entries, in their order."""
    lines = []
    for entry, result in zip(table.entries, comparisons, strict=True):
        verdicts = {(one["variant"], one["labels"]): one["outcome"] for one in result["verdicts"]}
        for group in result["groups"]:
            for one in group["variants"]:
                name, labels = one["variant"], group["labels"]
                line = Line(
                    task=entry.task,
                    metric=result["metric"],
                    student=entry.student,
                    labels=labels,
                    variant=name,
                    role=one["role"],
                    published=_find_published(table.published, entry.student, name, entry.task, labels),
                    dev=_summarise(one["validation_scores"]),
                    test=_summarise(one["scores"]),
                    verdict=verdicts.get((name, labels)),
                )
                lines.append(line)
    return lines


def _find_published(
    published: Published | None, student: str, variant: str, task: str, labels: int | None
) -> float | None:
    """Find what others report; it is of all labels."""
    return None if published is None or labels is not None else published.scores.get((student, variant, task))


def _summarise(scores: Sequence[float]) -> Summary:
    deviation = 100 * stdev(scores) if len(scores) > 1 else None
    return Summary(100 * mean(scores), deviation, len(scores))


def describe_lines(table: Table, lines: Sequence[Line]) -> dict[str, Any]:
    """Make the object that `--json` prints."""
    source = None if table.published is None else table.published.source
    return {"name": table.name, "published": source, "note": NOTE, "lines": [asdict(line) for line in lines]}


def write_figures(folder: Path, table: Table, lines: Sequence[Line]) -> None:
    """Write table.json, table.csv and table.md into a folder."""
    described = describe_lines(table, lines)
    replace_file(folder / JSON, orjson.dumps(described, option=orjson.OPT_INDENT_2) + b"\n")
    replace_file(folder / CSV, write_csv(lines).encode())
    replace_file(folder / MARKDOWN, write_markdown(table, lines).encode())


def write_csv(lines: Sequence[Line]) -> str:
    """Write a line of CSV for each, with every figure in a column of its own."""
    rows = [_flatten(line) for line in lines]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flatten(line: Line) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in asdict(line).items():
        flat |= {f"{name}_{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def write_markdown(table: Table, lines: Sequence[Line]) -> str:
    """Write the table in Markdown, with what its columns mean."""
    heads = [f"# {table.name}", "", NOTE, ""]
    if table.published is not None:
        heads += [f"published: {table.published.source}", ""]
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *map(_show, lines)]
    return "\n".join([*heads, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def print_figures(table: Table, lines: Sequence[Line]) -> None:
    """Print the table on standard output."""
    from rich.markup import escape
    from rich.table import Table as Printed

    printed = Printed(title=escape(table.name))
    for column in COLUMNS:
        printed.add_column(column, justify="right" if column in ("published", "dev", "held out", "seeds") else "left")
    for line in lines:
        printed.add_row(*_show(line))
    print_table(printed)
    results.print(NOTE, markup=False, soft_wrap=True)
    if table.published is not None:
        results.print(f"published: {table.published.source}", markup=False, soft_wrap=True)


def _show(line: Line) -> list[str]:
    return [
        line.task,
        line.metric,
        line.student,
        "all" if line.labels is None else f"{line.labels:,}",
        line.variant,
        "" if line.published is None else f"{line.published:.1f}",
        _show_summary(line.dev),
        _show_summary(line.test),
        str(line.test.n),
        line.verdict or "",
    ]


def _show_summary(summary: Summary) -> str:
    return f"{summary.mean:.1f}" + ("" if summary.deviation is None else f" ± {summary.deviation:.1f}")
