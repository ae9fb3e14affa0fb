"""What is said to a teacher that answers in words: the task's question and the text's fields, drawn or written."""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from string import ascii_uppercase
from typing import Any, NamedTuple

from shared.errors import UsageError
from shared.example import Example
from shared.tasks import Task

# In a recipe's prompt: the answer is neither one of the label words nor a number; it is any number of label words.
FREE_TEXT, LABEL_SET = "text", "label_set"


class Draw(StrEnum):
    """What of a prompt is drawn as pictures; the rest is written."""

    FIELDS = "fields"  # the task's text fields; the question is written
    ALL = "all"  # the question, and the fields below it
    NONE = "none"


class Prompt(NamedTuple):
    """One question. `drawn` is shown as one or more pictures, before `written`; None where nothing is drawn.

    `written` is "" where all is drawn.
    """

    drawn: str | None
    written: str


def use_letters(task: Task) -> Task:
    """Make of `task` one that asks for the letter of an option: the question lists label words with letters.

    Letters are single tokens that differ, where the words may begin alike. Raises UsageError for a task without labels,
    and for more labels than letters.
    """
    if task.kind != "classification":
        what = "several labels each" if task.has_labels else "no labels"
        raise UsageError(f"--letters: the answers of {task.name} are {what}")
    if len(task.label_words) > len(ascii_uppercase):
        raise UsageError(
            f"--letters: {task.name} has {len(task.label_words)} labels, and there are {len(ascii_uppercase)} letters; "
            "--teacher transformers and vllm score whole label words, however many"
        )
    letters = tuple(ascii_uppercase[: len(task.label_words)])
    options = "\n".join(f"{letter}. {word}" for letter, word in zip(letters, task.label_words, strict=True))
    asked = f"Answer with the letter only: {', '.join(letters[:-1])} or {letters[-1]}."
    question = "\n\n".join(part for part in (task.question, options, asked) if part)
    return replace(task, question=question, label_words=letters)


def build_prompt(question: str, example: Example, draw: Draw) -> Prompt:
    """What is drawn and what is written of `example` and a task's `question`, "" where a text is asked as it stands."""
    text = lay_out(example)
    if draw is Draw.FIELDS:
        return Prompt(text, question)
    both = f"{question}\n\n{text}" if question else text
    return Prompt(both, "") if draw is Draw.ALL else Prompt(None, both)


def lay_out(example: Example) -> str:
    """All text fields of `example` as one text: what is drawn, or written under the question.

    Choices are listed below with letters, unless the second text holds them already.
    """
    if not example.text_pair and not example.choices:
        return example.text
    pair, choices = example.text_pair or "", example.choices or ()
    listed = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    below = "" if all(choice in pair for choice in choices) else "\n".join(listed)
    return "\n\n".join(part for part in (example.text, pair, below) if part)


def describe_prompt(task: Task, draw: Draw) -> Mapping[str, Any]:
    """What changes any prompt of `task`: the entry "prompt" of the recipe of a teacher that answers in words."""
    prompt = {"question": task.question, "label_words": list(task.label_words), "draw": str(draw)}
    if task.kind == "multilabel":
        return {**prompt, "answer": LABEL_SET}
    return {**prompt, "answer": FREE_TEXT} if task.is_written else prompt


def find_drawn(recipe: Mapping[str, Any], example: Example) -> str | None:
    """The text that the teacher of `recipe` was shown as pictures, None where it was shown none.

    A teacher whose recipe has no prompt is not asked in words: it sees the fields.
    """
    if recipe.get("layout") is None:
        return None
    prompt = recipe.get("prompt")
    return lay_out(example) if prompt is None else build_prompt(prompt["question"], example, Draw(prompt["draw"])).drawn
