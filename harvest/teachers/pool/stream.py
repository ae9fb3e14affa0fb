"""The requests that a pool hands out in one call: those to come, those that came back, those that are asked alone."""

from collections.abc import AsyncIterator

from harvest.teachers.base import Request
from harvest.teachers.pool.seats import Requests


class Stream:
    """The requests of one call, those that come back included."""

    def __init__(self, requests: AsyncIterator[Request], expected: int | None) -> None:
        self.waiting = Requests()
        self._requests, self._expected = requests, expected
        self._next: Request | None = None
        self._is_exhausted = False

    @property
    def left(self) -> int | None:
        """How many requests wait to be asked; None where nobody knows."""
        known = len(self.waiting.returned) + len(self.waiting.suspects) + (self._next is not None)
        if self._is_exhausted:
            return known
        return None if self._expected is None else known + max(0, self._expected)

    @property
    def is_empty(self) -> bool:
        """Whether no request is left to ask."""
        return self._is_exhausted and self._next is None and not self.waiting.returned and not self.waiting.suspects

    async def is_over(self) -> bool:
        """Whether no request is left to ask but those that are asked alone."""
        if self._next is None and not self.waiting.returned:
            await self._pull()
        return self._next is None and not self.waiting.returned

    async def take(self, count: int, *, may_suspect: bool) -> list[Request]:
        """Take up to `count` requests, first those that came back; or one to be asked alone, where no other is left."""
        taken: list[Request] = []
        while len(taken) < count and not await self.is_over():
            if self.waiting.returned:
                taken.append(self.waiting.returned.popleft())
            elif self._next is not None:
                taken.append(self._next)
                self._next = None
        if count and may_suspect and not taken and self.waiting.suspects:
            taken.append(self.waiting.suspects.popleft())
        return taken

    async def _pull(self) -> None:
        if self._is_exhausted:
            return
        self._next = await anext(self._requests, None)
        if self._next is None:
            self._is_exhausted = True
        elif self._expected is not None:
            self._expected -= 1
