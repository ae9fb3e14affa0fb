"""A teacher for tests of the engine: answers from the text itself, and misbehaves where a test tells it to."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from harvest.teachers.base import Estimate, Remote, Reply, Request
from shared.errors import DataError, TeacherError
from shared.example import Example
from shared.schema import Answer, Status


@dataclass
class ScriptedTeacher:
    """Answers with a vector made of the text's hash. `asked` lists the texts that it was asked, in order.

    A text that contains "unaskable" cannot be asked; one that contains "fails" gets a failed answer while `failing`.
    After `break_after` answers it raises TeacherError. `ended` counts how often it was ended.
    """

    name: str = "scripted"
    price: float = 0.25
    failing: bool = True
    break_after: int | None = None
    version: int = 1
    asked: list[str] = field(default_factory=list)
    ended: int = 0
    remote: Remote | None = None

    def recipe(self) -> Mapping[str, Any]:
        return {"teacher": "scripted", "version": self.version}

    def content(self, example: Example) -> Mapping[str, Any]:
        if "unaskable" in example.text:
            raise DataError(f"{example.sample_id}: this text cannot be asked")
        return {"text": example.text}

    def estimate(self, example: Example) -> Estimate:
        return Estimate(len(example.text), 0, 1, self.price, 100)

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        async for request in requests:
            if self.break_after is not None and len(self.asked) >= self.break_after:
                raise TeacherError("the teacher went home")
            self.asked.append(request.example.text)
            yield Reply(request, self._answer(request.example.text))

    async def aclose(self) -> None:
        self.ended += 1

    def _answer(self, text: str) -> Answer:
        if self.failing and "fails" in text:
            return Answer(Status.FAILED, error="a fault of the test", cost_usd=self.price, attempts=1)
        vector = np.frombuffer(sha256(text.encode()).digest(), np.uint8).astype(np.float32)
        return Answer(Status.OK, reply=text.upper(), embedding=vector, cost_usd=self.price, attempts=1)
