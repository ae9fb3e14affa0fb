"""Two passes in one row: the vectors of one teacher, joined to the answers that another folder keeps.

Some teachers give an answer or a vector, not both at once (vLLM has a runner for each). Each pass is a harvest of its
own, which resumes alone; the second one is told the first one's folder, and its rows hold both.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from harvest.teachers.base import Estimate, Remote, Reply, Request, Teacher
from shared.errors import UsageError
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards import RowGroup, choose_teacher, iterate_pieces, iterate_rows, load_manifest, read_row_group
from shared.tasks import Task

_IDENTITY = ("sample_id", "draw", "text", "text_pair", "status")
_CACHED_PIECES = 4  # rows come in about the order of the first pass, so that few pieces of it are read at a time


class OntoAnswers:
    """`teacher` with the answers of `folder`; a Teacher itself.

    A row has the vector, the pictures and the bill of the one, and all else of the other. Raises UsageError where the
    two do not fit together.
    """

    def __init__(self, teacher: Teacher, folder: Path, task: Task) -> None:
        self.name = teacher.name
        self._teacher = teacher
        self._folder = choose_teacher(folder)
        self._manifest = load_manifest(self._folder)
        if teacher.remote is not None:
            raise UsageError("--onto adds a vector to answers, and an endpoint gives none: use a teacher that does")
        if self._manifest.teacher == teacher.name:
            raise UsageError(f"--onto {folder}: rows with both need a folder of their own; give a --name")
        if (self._manifest.task, self._manifest.labels) != (task.name, task.labels):
            raise UsageError(
                f"{self._folder} answers the task {self._manifest.task} with labels {list(self._manifest.labels)}, "
                f"not {task.name} with {list(task.labels)}"
            )
        self._places: dict[bytes, tuple[int, int]] | None = None  # where each answer lies: its piece, its row there
        self._pieces: list[RowGroup | pa.Table] = []
        self._rows: dict[int, list[Row]] = {}

    @property
    def remote(self) -> Remote | None:
        """That of the teacher of the vectors."""
        return self._teacher.remote

    def recipe(self) -> Mapping[str, Any]:
        """The recipes of both."""
        return {**self._teacher.recipe(), "onto": {"teacher": self._manifest.teacher, "recipe": self._manifest.recipe}}

    def content(self, example: Example) -> Mapping[str, Any]:
        """As the teacher of the vectors is asked."""
        return self._teacher.content(example)

    def estimate(self, example: Example) -> Estimate:
        """As the teacher of the vectors estimates."""
        return self._teacher.estimate(example)

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Ask for the vectors of the rows that have an answer; any other row fails, and its vector is not asked for."""
        answers: dict[str, Answer] = {}
        lacking: list[Reply] = []

        async def find_answers() -> AsyncGenerator[Request, None]:
            async for request in requests:
                answer = self._find(request)
                if answer is None:
                    problem = f"{self._folder} keeps no answer for it: finish that harvest, then --retry failed"
                    lacking.append(Reply(request, Answer(Status.FAILED, error=problem)))
                else:
                    answers[request.key] = answer
                    yield request

        async with aclosing(self._teacher.answer(find_answers())) as replies:
            async for reply in replies:
                while lacking:
                    yield lacking.pop()
                yield Reply(reply.request, join(answers.pop(reply.request.key), reply.answer))
        while lacking:
            yield lacking.pop()

    async def aclose(self) -> None:
        """End the teacher of the vectors, and let go of the answers that were read."""
        self._places = None
        self._pieces.clear()
        self._rows.clear()
        await self._teacher.aclose()

    def _find(self, request: Request) -> Answer | None:
        example = request.example
        if self._places is None:
            self._places = self._find_places()
        place = self._places.get(_identify(example.sample_id, request.draw, example.text, example.text_pair))
        if place is None:
            return None
        number, row = place
        if number not in self._rows:
            while len(self._rows) >= _CACHED_PIECES:
                del self._rows[next(iter(self._rows))]
            piece = self._pieces[number]
            table = read_row_group(piece) if isinstance(piece, RowGroup) else piece
            self._rows[number] = list(iterate_rows(table))
        return self._rows[number][row].answer

    def _find_places(self) -> dict[bytes, tuple[int, int]]:
        places = {}
        for piece in iterate_pieces(self._folder, self._manifest, _IDENTITY):
            columns = (piece.table[name].to_pylist() for name in _IDENTITY)
            for row, (*identity, status) in enumerate(zip(*columns, strict=True)):
                if piece.current[row] and status != Status.UNASKED:
                    places[_identify(*identity)] = len(self._pieces), row
            self._pieces.append(piece.table if piece.row_group is None else piece.row_group)
        return places


def join(answer: Answer, vector: Answer) -> Answer:
    """`answer` with the embedding, the pictures and the bill of `vector`; its status too, where that has failed."""
    if vector.status is not Status.OK:
        answer = replace(answer, status=vector.status, error=vector.error)
    return replace(answer, **{name: getattr(vector, name) for name in _OF_VECTOR})


_OF_VECTOR = (
    *("embedding", "image_sha256", "prompt_tokens", "completion_tokens", "cost_usd"),
    *("latency_ms", "asked_at", "attempts"),
)


def _identify(sample_id: str, draw: int, text: str, text_pair: str | None) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (sample_id, str(draw), text, text_pair or ""):
        digest.update(b"%d\0" % len(part) + part.encode())
    return digest.digest()
