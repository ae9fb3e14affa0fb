"""Print the table of known tasks, as it stands in docs/tasks.md: python -m shared.tasks."""

from shared.tasks.catalogue import TASKS
from shared.tasks.task import Task


def describe_tasks() -> str:
    """A Markdown table of the known tasks."""
    head = ("task", "labels (ids from 0)", "label words", "metric", "splits", "text", "text pair", "sources")
    rows = [head, ("---",) * len(head), *map(_describe, TASKS.values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _describe(task: Task) -> tuple[str, ...]:
    first = task.sources[0]
    labels = ", ".join(task.labels)
    if task.target_range:
        labels = f"a number from {task.target_range[0]:g} to {task.target_range[1]:g}"
    # A file is named where it stands for all splits, else the folder of the splits' files.
    where = [next(iter(source.splits.values())) for source in task.sources]
    return (
        f"`{task.name}`",
        labels,
        ", ".join(task.label_words) or "-",
        task.metric,
        ", ".join(first.splits),
        f"`{first.text}`",
        f"`{first.text_pair}`" if first.text_pair else "-",
        ", else ".join(f"`{name.rpartition('/')[0] if '*' in name else name}`" for name in where),
    )


if __name__ == "__main__":
    print(describe_tasks())
