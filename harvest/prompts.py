"""What is said to a teacher that answers in words: the task's question, then the text under the task's own names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.example import Example
from shared.tasks import Task


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question. `text` is the part that a picture can carry instead of words."""

    question: str
    text: str


def build_prompt(task: Task, example: Example) -> Prompt:
    """The prompt of one example."""
    return Prompt(question=task.question, text=lay_out(example))


def lay_out(example: Example) -> str:
    """All text fields of `example` as one text: what is drawn, or written under the question.

    A task's choices are part of its `text_pair` already.
    """
    return example.text if example.text_pair is None else f"{example.text}\n\n{example.text_pair}"


def describe_prompt(task: Task) -> Mapping[str, Any]:
    """What of the task changes any prompt: part of the recipe of a teacher that answers in words."""
    return {"question": task.question, "label_words": list(task.label_words)}
