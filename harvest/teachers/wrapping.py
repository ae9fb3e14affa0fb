"""A teacher that is made of another one."""

from collections.abc import Mapping
from typing import Any

from harvest.teachers.base import Estimate, Teacher, find_draw_problem, find_memory, find_progress, sees_pictures
from shared.example import Example


class WrappedTeacher:
    """Says of itself what `teacher` says, but for what a subclass says otherwise; that answers, too.

    It has all members that a teacher may leave out: see harvest.teachers.base.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.name = teacher.name
        self._teacher = teacher

    @property
    def why_no_draws(self) -> str | None:
        """As the teacher has it."""
        return find_draw_problem(self._teacher)

    @property
    def sees_pictures(self) -> bool:
        """Whether the teacher is shown the rows' pictures."""
        return sees_pictures(self._teacher)

    @property
    def memory(self) -> str | None:
        """What the teacher takes."""
        return find_memory(self._teacher)

    @property
    def progress(self) -> str:
        """How the teacher is doing, where it answers in several places."""
        return find_progress(self._teacher)

    def recipe(self) -> Mapping[str, Any]:
        """That of the teacher."""
        return self._teacher.recipe()

    def content(self, example: Example) -> Mapping[str, Any]:
        """As the teacher is asked."""
        return self._teacher.content(example)

    def estimate(self, example: Example) -> Estimate:
        """As the teacher estimates."""
        return self._teacher.estimate(example)
