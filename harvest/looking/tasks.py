"""The list of known tasks: what each asks for, how it is scored, how many rows it has and where they lie."""

from collections.abc import Mapping
from typing import Any

from shared.console import results
from shared.printed_tables import print_table
from shared.tasks import TASKS
from shared.tasks.sizes import KNOWN_ROWS
from shared.tasks.task import Task


def describe_tasks() -> Mapping[str, Any]:
    """By name: the kind, the metric, the rule by which replies are judged, the rows by split, and the source.

    A number of rows that nobody states is None. Nothing is looked up: what is loaded is counted when it is.
    """
    return {
        task.name: {
            "kind": task.kind,
            "labels": list(task.labels),
            "metric": task.metric,
            "answer_rule": task.answer_rule,
            "max_reply_tokens": task.max_reply_tokens,
            "rows": {split: KNOWN_ROWS.get(task.name, {}).get(split) for split in task.sources[0].splits},
            "sources": [source.own_file or next(iter(source.splits.values())) for source in task.sources],
            "needs_file": bool(task.sources[0].own_file),
            "note": task.sources[0].note or None,
        }
        for task in TASKS.values()
    }


def print_tasks() -> None:
    """Print the same as a table."""
    from rich.table import Table

    table = Table()
    table.add_column("task", no_wrap=True)
    table.add_column("kind", overflow="fold")
    table.add_column("metric", overflow="fold")
    table.add_column("rows", no_wrap=True)
    table.add_column("source", overflow="fold")
    for task in TASKS.values():
        table.add_row(task.name, task.kind, task.metric, _show_rows(task), _show_source(task))
    print_table(table)
    results.print(
        "Rows are those that the data sets' cards state. A file of your own is a task too: give its path.\n"
        "A known task is read from a file of yours with --task-file; those without a hub need it.",
        markup=False,
    )


def _show_rows(task: Task) -> str:
    known = KNOWN_ROWS.get(task.name, {})
    return "\n".join(f"{split} {known[split]:,}" if split in known else split for split in task.sources[0].splits)


def _show_source(task: Task) -> str:
    source = task.sources[0]
    if source.own_file:
        return f"--task-file, from {source.own_file}"
    return next(iter(source.splits.values())).removeprefix("hf://datasets/").rpartition("/")[0]
