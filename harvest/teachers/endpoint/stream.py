"""Requests to replies: one task a request in flight, and those that back off beside them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from harvest.teachers.base import Reply, Request
from harvest.teachers.endpoint.asker import Asker
from harvest.teachers.endpoint.client import Client
from harvest.teachers.endpoint.limiter import Slot
from shared.errors import TeacherError


class Stream:
    """Asks a stream of requests; at most `held` are in flight, backing off, or answered and not taken yet."""

    def __init__(self, client: Client, asker: Asker, held: int) -> None:
        self._client, self._asker = client, asker
        self._room = asyncio.Semaphore(held)
        self._replies: asyncio.Queue[Reply | None] = asyncio.Queue()  # bounded by `held`
        self._fatal: Exception | None = None  # what ended the run, first
        self._asking: asyncio.Task[None] | None = None
        self._abandoned = False

    async def run(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """The replies, in the order in which they come.

        A request is pulled when it may be sent at once. Ends when the requests or the budget end. Raises TeacherError
        where no request can succeed, and what reading the requests raised, after all that was in flight.
        """
        self._asking = asyncio.create_task(self._ask_all(requests))
        self._asking.add_done_callback(self._end)  # no `finally` of its own: it may be cancelled before it begins
        if self._abandoned:
            self._asking.cancel()
        try:
            while (reply := await self._replies.get()) is not None:
                self._room.release()
                yield reply
            if not self._abandoned:
                await self._asking
                if self._fatal is not None:
                    raise self._fatal
        finally:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def abandon(self) -> None:
        """Break off what is in flight; `run` yields what has arrived, and ends."""
        self._abandoned = True
        if self._asking is not None:
            self._asking.cancel()

    async def _ask_all(self, requests: AsyncIterator[Request]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while not self._client.ending:
                    await self._room.acquire()
                    slot = await self._client.take_slot()
                    request = await self._pull(requests)
                    if request is None:
                        self._client.give_back(slot)
                        break
                    group.create_task(self._ask_one(request, slot))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None  # a defect: what an endpoint or a source does wrong is in `_fatal`

    def _end(self, _: asyncio.Task[None]) -> None:
        self._replies.put_nowait(None)

    async def _pull(self, requests: AsyncIterator[Request]) -> Request | None:
        """The next request; None where there is none, or the source cannot be read on."""
        try:
            return await anext(requests, None)
        except Exception as error:
            self._fatal = self._fatal or error
            return None

    async def _ask_one(self, request: Request, slot: Slot) -> None:
        asked = None
        try:
            asked = await self._asker.ask(request.example, request.key, slot)
        except TeacherError as error:
            # What is in flight is paid for and may arrive; the client sends nothing more.
            self._fatal = self._fatal or error
        if asked is None:
            self._room.release()
        else:
            self._fatal = self._fatal or asked.fatal
            self._replies.put_nowait(Reply(request, asked.answer, asked.originals))
