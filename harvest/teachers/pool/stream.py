"""The requests that a pool hands out in one call: those to come, those that came back, those that are asked alone."""

from collections import deque
from collections.abc import AsyncIterator

from harvest.teachers.base import Request, take_requests
from harvest.teachers.pool.seats import Requests


class Stream:
    """The requests of one call, those that come back included."""

    def __init__(self, requests: AsyncIterator[Request], expected: int | None) -> None:
        self.waiting = Requests()
        self._requests, self._expected = requests, expected
        self._ahead: deque[Request] = deque()
        self._is_exhausted = False

    @property
    def left(self) -> int | None:
        """How many requests wait to be asked; None where nobody knows."""
        known = len(self.waiting.returned) + len(self.waiting.suspects) + len(self._ahead)
        if self._is_exhausted:
            return known
        return None if self._expected is None else known + max(0, self._expected)

    @property
    def is_empty(self) -> bool:
        """Whether no request is left to ask."""
        return self._is_exhausted and not self._ahead and not self.waiting.returned and not self.waiting.suspects

    async def is_over(self) -> bool:
        """Whether no request is left to ask but those that are asked alone."""
        if not self.waiting.returned:
            await self._pull(1)
        return not self._ahead and not self.waiting.returned

    async def take(self, count: int, *, may_suspect: bool) -> list[Request]:
        """Take up to `count` requests, first those that came back; or one to be asked alone, where no other is left."""
        returned = self.waiting.returned
        taken = [returned.popleft() for _ in range(min(count, len(returned)))]
        if len(taken) < count:
            await self._pull(count - len(taken))
            taken += [self._ahead.popleft() for _ in range(min(count - len(taken), len(self._ahead)))]
        if count and may_suspect and not taken and self.waiting.suspects:
            taken.append(self.waiting.suspects.popleft())
        return taken

    async def _pull(self, count: int) -> None:
        """Have so many requests ready, or all that come."""
        while not self._is_exhausted and len(self._ahead) < count:
            more = await take_requests(self._requests, count - len(self._ahead))
            self._ahead.extend(more)
            self._is_exhausted = not more
            if self._expected is not None:
                self._expected -= len(more)
