"""One labelled or unlabelled text of a task, as both stages see it."""

from dataclasses import dataclass
from typing import NamedTuple


class Message(NamedTuple):
    """One turn of a conversation: `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class RowPicture:
    """A picture that a row has of its own: where it lies, a path or an address, or its file's bytes where the data
    hold them; `place` is then the name that they give it, "" for none. `problem` is why the data name no picture.
    """

    place: str
    content: bytes | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a task.

    `sample_id` is stable across runs and unique within its split. At most one of `label` (index into the task's
    labels), `label_set` (several of them, ascending; empty where none fits), `target` (regression) and `target_text`
    (generation) is set; all None is an unlabelled row. `references`
    are all texts that are right answers, where a task has several. `messages` is the conversation before the answer,
    where the task is one; `text` is then all of it in one piece. `pictures` are what a teacher that sees is shown
    beside the text. No shard holds them, and a row that is read from one has none: a student learns from the text.
    """

    sample_id: str
    text: str
    text_pair: str | None = None
    choices: tuple[str, ...] | None = None
    label: int | None = None
    label_set: tuple[int, ...] | None = None
    target: float | None = None
    target_text: str | None = None
    references: tuple[str, ...] | None = None
    messages: tuple[Message, ...] | None = None
    pictures: tuple[RowPicture, ...] | None = None
