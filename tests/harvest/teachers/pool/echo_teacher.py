"""A teacher that a package brings: it answers at once, or gathers; it dies of certain texts, and leaves others out."""

import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import numpy as np

from harvest.teachers.base import Estimate, Reply, Request
from harvest.teachers.batches import answer_in_batches
from harvest.teachers.registry import TeacherEntry
from shared.errors import TeacherError
from shared.example import Example
from shared.options import Option
from shared.schema import Answer, Status
from shared.tasks import Task


@dataclass(frozen=True)
class EchoConfig:
    """`gather` rows are answered together, in `seconds`. `asked` is a folder in which each asked text is noted.

    `broken` is what it says instead of answering.
    """

    gather: Annotated[int, Option("Rows that are answered together.", at_least=1)] = 1
    seconds: Annotated[float, Option("Seconds that they take.")] = 0.0
    asked: Annotated[str | None, Option("A folder.")] = None
    broken: Annotated[str | None, Option("What is wrong.")] = None


class EchoError(TeacherError):
    """A kind of the package's own, which is not made of its message alone."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


class EchoTeacher:
    """Answers with the text in capitals, a vector of its hash, and sound of every hundredth."""

    remote = None

    def __init__(self, config: EchoConfig, task: Task, name: str) -> None:
        self.name, self._config = name, config

    def recipe(self) -> Mapping[str, Any]:
        return {"teacher": "echo", "gather": 1}

    def content(self, example: Example) -> Mapping[str, Any]:
        return {"text": example.text}

    def estimate(self, example: Example) -> Estimate:
        return Estimate(bytes=70)

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        return answer_in_batches(requests, self._config.gather, self._answer)

    async def aclose(self) -> None:
        if self._config.asked is not None:
            Path(self._config.asked, f"ended-{os.getpid()}").touch()

    def _answer(self, requests: Sequence[Request]) -> list[Reply]:
        if self._config.broken is not None:
            raise EchoError(self._config.broken, "the echo")
        if self._config.asked is not None:
            with Path(self._config.asked, f"asked-{os.getpid()}").open("a") as file:
                file.writelines(f"{request.example.text}\n" for request in requests)
        time.sleep(self._config.seconds)
        if any("deadly" in request.example.text for request in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return [_answer_text(request) for request in requests if "forgotten" not in request.example.text]


def _answer_text(request: Request) -> Reply:
    text = request.example.text
    vector = np.frombuffer(sha256(text.encode()).digest() * 12, np.uint8).astype(np.float32)
    reply: Any = Lock() if "unsendable" in text else text.upper()
    answer = Answer(Status.OK, reply=reply, embedding=vector, latency_ms=1.0, attempts=1)
    return Reply(request, answer, audio=text.encode() if text.endswith("99") else None)


ECHO = TeacherEntry(
    name="echo",
    summary="says the text again",
    teacher="tests.harvest.teachers.pool.echo_teacher:EchoTeacher",
    config="EchoConfig",
    gives=("reply", "embedding"),
)
