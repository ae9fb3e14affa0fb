"""Print the tables of known tasks, as they stand in docs/tasks.md: python -m shared.tasks."""

from collections.abc import Iterable

from shared.tasks.catalogue import TASKS
from shared.tasks.sizes import KNOWN_ROWS
from shared.tasks.task import Source, Task


def describe_tasks() -> tuple[str, str]:
    """Two Markdown tables: of the tasks whose answers are labels or numbers, and of those that are written."""
    labelled = ("task", "labels (ids from 0)", "label words", "metric", "splits", "text", "text pair", "sources")
    written = ("task", "kind", "right answer", "metric", "answer rule", "rows, as far as known", "text", "source")
    return (
        _make_table(labelled, (_describe_labelled(task) for task in TASKS.values() if not task.is_written)),
        _make_table(written, (_describe_written(task) for task in TASKS.values() if task.is_written)),
    )


def _make_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _describe_labelled(task: Task) -> tuple[str, ...]:
    first = task.sources[0]
    labels = ", ".join(task.labels)
    if task.target_range:
        labels = f"a number from {task.target_range[0]:g} to {task.target_range[1]:g}"
    return (
        f"`{task.name}`",
        labels,
        ", ".join(task.label_words) or "-",
        task.metric,
        ", ".join(first.splits),
        f"`{first.text}`" + (f", picture `{first.image}`" if first.image else ""),
        f"`{first.text_pair}`" if first.text_pair else "-",
        ", else ".join(f"`{describe_place(source)}`" for source in task.sources),
    )


def _describe_written(task: Task) -> tuple[str, ...]:
    first = task.sources[0]
    known = KNOWN_ROWS.get(task.name, {})
    choices = first.choices_column or ", ".join(first.choices)
    return (
        f"`{task.name}`",
        task.kind,
        f"`{first.label}` of `{choices}`" if task.kind == "choice" else f"`{first.target_text}`",
        task.metric,
        f"`{task.answer_rule}`" if task.answer_rule else "-",
        ", ".join(f"{split} {known[split]:,}" if split in known else split for split in first.splits),
        f"`{' '.join(filter(None, (first.text, first.text_pair)))}`",
        f"`{describe_place(first)}`",
    )


def describe_place(source: Source) -> str:
    """Where a source's files lie: a file where it stands for all splits, else the folder of the splits' files."""
    name = next(iter(source.splits.values()))
    return source.own_file or (name.rpartition("/")[0] if "*" in name else name)


if __name__ == "__main__":
    print("\n\n".join(describe_tasks()))
