"""One task, loaded and checked before a teacher is asked: its rows, and what the teacher will read of one of them."""

from collections.abc import Mapping
from typing import Any

from harvest.chat.prompts import Draw, build_prompt
from shared.console import results
from shared.example import Example
from shared.tasks import find_task, load_task
from shared.tasks.task import Task


def describe_task(name_or_path: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Load a task, which checks every row, and give what came of it; `prompt` is what is asked about its first row.

    `options` are those of a file (shared.tasks.options), by name.

    Raises what find_task and load_task raise.
    """
    loaded = load_task(find_task(name_or_path, **options))
    task = loaded.task
    first = next(row for split in loaded.splits for row in loaded.examples(split))  # a cut may leave a split empty
    written = build_prompt(task.question, first, Draw.NONE).written
    return {
        "task": task.name,
        "kind": task.kind,
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "target_range": task.target_range,
        "question": task.question,
        "metric": task.metric,
        "answer_rule": task.answer_rule,
        "max_reply_tokens": task.max_reply_tokens,
        "source": loaded.source,
        "splits": dict(loaded.splits),
        "notes": list(loaded.notes),
        "sample_id": first.sample_id,
        "prompt": written,
        "answer": _spell_answer(task, first),
    }


def print_task(described: Mapping[str, Any]) -> None:
    """Print the same for a person."""
    given = (
        ("labels", ", ".join(described["labels"])),
        ("answered with", ", ".join(described["label_words"])),
        ("target range", " to ".join(f"{bound:g}" for bound in described["target_range"] or ())),
        ("metric", described["metric"]),
        ("answer rule", described["answer_rule"]),
        ("longest reply", described["max_reply_tokens"] and f"{described['max_reply_tokens']} tokens"),
        ("rows", ", ".join(f"{split} {rows:,}" for split, rows in described["splits"].items())),
        ("source", described["source"]),
    )
    lines = [
        f"{described['task']}: a {described['kind']}, every row of which was read and checked",
        *(f"  {what}: {value}" for what, value in given if value),
        *(f"  {note}" for note in described["notes"]),
        f"What a teacher is asked about {described['sample_id']}, in words; one that sees gets the text as a picture:",
        *(f"  | {line}" for line in described["prompt"].splitlines()),
    ]
    if described["answer"] is not None:
        lines.append(f"The right answer, which the teacher is not told: {described['answer']}")
    for line in lines:
        results.print(line, markup=False, highlight=False, soft_wrap=True)


def _spell_answer(task: Task, row: Example) -> str | None:
    """The right answer of a row as the teacher would give it; None where it has none."""
    if row.target is not None:
        return f"{row.target:g}"
    if row.label_set is not None:
        return ", ".join(task.label_words[label] for label in row.label_set) or "none"
    if row.label is None:
        return row.target_text
    return row.choices[row.label] if row.choices else task.label_words[row.label]
