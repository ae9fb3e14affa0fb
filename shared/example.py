"""One labelled or unlabelled text of a task, as both stages see it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a task.

    `sample_id` is stable across runs and unique within its split. At most one of `label` (index into the task's
    labels), `target` (regression) and `target_text` (generation) is set; all None is an unlabelled row.
    """

    sample_id: str
    text: str
    text_pair: str | None = None
    choices: tuple[str, ...] | None = None
    label: int | None = None
    target: float | None = None
    target_text: str | None = None
