"""The rows of a plan on their way to the teacher, as it has room for them: one by one, or many at once."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from harvest.asking.planned import PlannedRows
from harvest.teachers.base import Request
from shared.example import Example


class PlannedRow(NamedTuple):
    """One row of `rows`."""

    rows: PlannedRows
    number: int
    example: Example
    draw: int
    action: int


class RequestFeed:
    """An iterator of requests, and a source of many: see harvest.teachers.base.take_requests.

    `ask` makes requests of those rows that need one; it gives None where nothing more is to be asked.
    """

    def __init__(
        self, rows: Iterator[PlannedRow], ask: Callable[[Sequence[PlannedRow]], Awaitable[Sequence[Request] | None]]
    ) -> None:
        self._rows, self._ask = rows, ask

    def __aiter__(self) -> "RequestFeed":
        return self

    async def __anext__(self) -> Request:
        for request in await self.take(1):
            return request
        raise StopAsyncIteration

    async def take(self, count: int) -> Sequence[Request]:
        """Take up to `count` requests; none where no more come."""
        while rows := list(islice(self._rows, count)):
            requests = await self._ask(rows)
            if requests is None:
                self._rows = iter(())
            elif requests:
                return requests
        return ()
