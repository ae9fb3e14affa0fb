"""Two passes in one row: the vectors of one teacher, joined to the answers that another folder keeps.

Some teachers give an answer or a vector, not both at once (vLLM has a runner for each). Each pass is a harvest of its
own, which resumes alone; the second one is told the first one's folder, and its rows hold both.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from harvest.teachers.base import Remote, Reply, Request, Teacher
from harvest.teachers.kept_answers import KeptAnswers
from harvest.teachers.wrapping import WrappedTeacher
from shared.errors import UsageError
from shared.schema import Answer, Status
from shared.tasks import Task


class OntoAnswers(WrappedTeacher):
    """`teacher` with the answers of `folder`; a Teacher itself.

    A row has the vector, the pictures and the bill of the one, and all else of the other. Raises UsageError where the
    two do not fit together.
    """

    def __init__(self, teacher: Teacher, folder: Path, task: Task) -> None:
        super().__init__(teacher)
        self._kept = KeptAnswers(folder, task)
        if teacher.remote is not None:
            raise UsageError("--onto adds a vector to answers, and an endpoint gives none: use a teacher that does")
        if self._kept.manifest.teacher == teacher.name:
            raise UsageError(f"--onto {folder}: rows with both need a folder of their own; give a --name")

    @property
    def why_no_draws(self) -> None:
        """The answers may have several draws, whatever the teacher of the vectors has."""
        return None

    @property
    def remote(self) -> Remote | None:
        """That of the teacher of the vectors."""
        return self._teacher.remote

    def recipe(self) -> Mapping[str, Any]:
        """The recipes of both."""
        manifest = self._kept.manifest
        return {**self._teacher.recipe(), "onto": {"teacher": manifest.teacher, "recipe": manifest.recipe}}

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Ask for the vectors of the rows that have an answer; any other row fails, and its vector is not asked for."""
        answers: dict[str, Answer] = {}
        lacking: list[Reply] = []

        async def find_answers() -> AsyncGenerator[Request, None]:
            async for request in requests:
                answer = self._kept.find(request.example, request.draw)
                if answer is None:
                    problem = f"{self._kept.folder} keeps no answer for it: finish that harvest, then --retry failed"
                    lacking.append(Reply(request, Answer(Status.FAILED, error=problem)))
                else:
                    answers[request.key] = answer
                    yield request

        async with aclosing(self._teacher.answer(find_answers())) as replies:
            async for reply in replies:
                while lacking:
                    yield lacking.pop()
                yield replace(reply, answer=join(answers.pop(reply.request.key), reply.answer))
        while lacking:
            yield lacking.pop()

    async def aclose(self) -> None:
        """End the teacher of the vectors, and let go of the answers that were read."""
        self._kept.close()
        await self._teacher.aclose()


def join(answer: Answer, vector: Answer) -> Answer:
    """`answer` with the embedding, the pictures and the bill of `vector`; its status too, where that has failed."""
    if vector.status is not Status.OK:
        answer = replace(answer, status=vector.status, error=vector.error)
    return replace(answer, **{name: getattr(vector, name) for name in _OF_VECTOR})


_OF_VECTOR = (
    *("embedding", "image_sha256", "prompt_tokens", "completion_tokens", "cost_usd"),
    *("latency_ms", "asked_at", "attempts"),
)
