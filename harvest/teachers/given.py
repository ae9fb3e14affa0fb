"""Given texts: what a teacher scores token by token instead of writing something itself.

`reference` is the right answer of each row, `text` the row's own text as the continuation of nothing, and anything else
names a teacher folder, whose replies are scored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from harvest.teachers.kept_answers import KeptAnswers
from shared.answers import gold_text
from shared.errors import DataError, UsageError
from shared.example import Example
from shared.options import Option
from shared.tasks import Task

REFERENCE, TEXT = "reference", "text"
FINISH_REASON = "given"  # of a row whose reply was given and not written

GivenOption: TypeAlias = Annotated[
    str | None,
    Option(
        "Score a text that is given, token by token: reference (the right answer), text (the row's own text), or a "
        "teacher=<name> folder, whose replies are scored.",
        metavar="reference|text|FOLDER",
    ),
]

EndOption: TypeAlias = Annotated[
    bool, Option("With --score-given: score the end of the text too, as a token of its own.")
]


class GivenTexts:
    """The text that is given for each row, by what the user chose. Raises UsageError where the task has none."""

    def __init__(self, choice: str, task: Task) -> None:
        self.has_prompt = choice != TEXT
        self._kept: KeptAnswers | None = None
        if choice == REFERENCE:
            if task.kind in ("classification", "regression"):
                raise UsageError(
                    f"--score-given reference: the answers of {task.name} are no texts; "
                    "--score-given text scores its texts themselves"
                )
        elif choice != TEXT:
            self._kept = KeptAnswers(Path(choice), task)
        self._choice = choice

    def describe(self) -> Mapping[str, Any] | str:
        """What a recipe says of it."""
        if self._kept is None:
            return self._choice
        return {"teacher": self._kept.manifest.teacher, "recipe": self._kept.manifest.recipe}

    @property
    def has_draws(self) -> bool:
        """Whether several draws of one prompt have texts of their own."""
        return self._kept is not None

    def find(self, example: Example, draw: int = 0) -> str:
        """The text that is given for a row. Raises DataError where it has none."""
        if self._choice == TEXT:
            return example.text
        if self._kept is None:
            text = gold_text(example)
            problem = "the row has no right answer to score"
        else:
            answer = self._kept.find(example, draw)
            text = None if answer is None else answer.reply
            problem = f"{self._kept.folder} keeps no reply to it: finish that harvest, then --retry failed"
        if not text:
            raise DataError(problem)
        return text

    def close(self) -> None:
        """Let go of the replies that were read."""
        if self._kept is not None:
            self._kept.close()
