"""What runs in a replica: it builds the teacher, feeds its stream from batches, and gives replies back in batches."""

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from harvest.teachers.base import Reply, Request, Teacher
from harvest.teachers.pool.messages import Answered, Batch, Failure, FromReplica, Means, Room, Said, Settings, Up
from harvest.teachers.registry import prepare_teacher
from shared.console import silence
from shared.cores import use_cores
from shared.errors import RecipeMismatchError, TeacherError
from shared.events import listened
from shared.failures import explain
from shared.keys import canonical_json
from shared.schema import answer_schema

LEAST_AHEAD, MOST_AHEAD = 8, 512  # requests that lie ready beside those that the teacher has taken
GATHERED = 256  # replies that go together
GATHER_SECONDS = 0.02  # how long a reply waits for others
PACE_SECONDS = 1.0


class Replica:
    """One teacher and the stream that it answers, in one event loop. `send` is called there, and does not wait."""

    def __init__(self, settings: Settings, means: Means, send: Callable[[FromReplica], None]) -> None:
        self._settings, self._means, self._send = settings, means, send
        self._waiting: deque[Request] = deque()
        self._is_last = False  # of the stream that is being answered
        self._unanswered = 0  # that the teacher has taken
        self._arrived = asyncio.Event()
        self._replies: list[Reply] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._pace = _Pace()
        self._stream = 0
        self._granted = 0  # room that was told of, and not filled yet
        self._is_closed = False

    def take(self, batch: Batch) -> None:
        """Take requests that the pool hands over."""
        self._waiting.extend(batch.unpack())
        self._granted = max(0, self._granted - len(batch.keys))
        self._is_last = self._is_last or batch.last
        self._arrived.set()

    def close(self) -> None:
        """End once what is being answered is answered."""
        self._is_closed = self._is_last = True
        self._arrived.set()

    async def serve(self) -> None:
        """Answer until it is closed. What ends that earlier is a Failure, the last thing that is said."""
        silence(tells=True)
        teacher: Teacher | None = None
        with listened(_Teller(self._send)):
            try:
                teacher = await asyncio.to_thread(build_teacher, self._settings, self._means)
                self._send(Up(socket.gethostname()))
                while not self._is_closed:
                    await self._answer_stream(teacher)
            except Exception as error:
                self._flush()
                self._send(Failure.of(explain(error)))
            finally:
                if teacher is not None:
                    await teacher.aclose()

    async def _answer_stream(self, teacher: Teacher) -> None:
        """Answer one stream to its end, and begin the next. Raises TeacherError where requests are left out of it."""
        async with aclosing(teacher.answer(self._give())) as replies:
            async for reply in replies:
                self._replies.append(reply)
                self._unanswered -= 1
                self._pace.count()
                if len(self._replies) >= GATHERED:
                    self._flush()
                elif self._flushing is None:
                    self._flushing = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)
        lost = self._unanswered + len(self._waiting)
        if lost or not self._is_last:  # the pool would wait for it
            raise TeacherError(f"the teacher ended before its time; {lost:,} requests had no answer")
        self._flush()
        self._stream += 1
        self._granted = 0
        self._is_last = self._is_closed

    async def _give(self) -> AsyncGenerator[Request, None]:
        """The requests of one stream, as the teacher takes them."""
        while True:
            while not self._waiting:
                if self._is_last:
                    return
                self._tell_room(starving=True)
                self._arrived.clear()
                await self._arrived.wait()
            self._unanswered += 1
            yield self._waiting.popleft()
            self._tell_room(starving=False)

    def _tell_room(self, *, starving: bool) -> None:
        """Tell the pool how much more is taken: by the pace, so that no replica holds what another could answer."""
        ready, ahead = len(self._waiting) + self._granted, self._pace.ahead
        if starving or (ready <= ahead // 2 and not self._is_last):
            count = max(0, ahead - ready)
            self._granted += count
            self._send(Room(self._stream, count, starving))

    def _flush(self) -> None:
        """Hand over the replies that were gathered."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        replies, self._replies = self._replies, []
        if replies:
            try:
                self._send(Answered.pack(replies))
            except Exception as error:  # an answer that cannot be kept: the pool finds out which
                self._send(Failure.of(explain(error)))


class _Pace:
    """How many requests should lie ready: about as many as are answered in a second."""

    def __init__(self) -> None:
        self.ahead = LEAST_AHEAD
        self._since, self._count = time.monotonic(), 0

    def count(self) -> None:
        """Count a reply."""
        self._count += 1
        seconds = time.monotonic() - self._since
        if seconds >= PACE_SECONDS:
            self.ahead = min(MOST_AHEAD, max(LEAST_AHEAD, round(self._count / seconds)))
            self._since, self._count = time.monotonic(), 0


class _Teller:
    """Hands notices on to the pool."""

    def __init__(self, send: Callable[[FromReplica], None]) -> None:
        self._send, self._loop = send, asyncio.get_running_loop()

    def hear(self, moment: str, event: str, fields: Mapping[str, Any]) -> None:
        """Hand on the text of a notice, from whatever thread."""
        if event == "notice":
            self._loop.call_soon_threadsafe(self._send, Said(str(fields["text"])))

    def lose(self, error: Exception) -> None:
        """Hear no more."""


def build_teacher(settings: Settings, means: Means) -> Teacher:
    """Build the teacher, with the cores and devices that the replica has.

    Raises RecipeMismatchError where its answers would not be those of the run: it has another version of a package,
    another file under the same path, or another kind of device; or where it would send other columns.
    """
    if settings.columns != str(answer_schema()):
        raise RecipeMismatchError(
            f"{socket.gethostname()} has another version of this package, whose answers have other columns: install "
            "the one that `harvest run` has there, too"
        )
    os.environ.update(means.environment or {})
    if means.cores is not None:
        use_cores(means.cores)
    with suppress(OSError):  # another machine may have no such folder
        os.chdir(settings.folder)
    teacher: Teacher = prepare_teacher(settings.choice)(settings.task, name=settings.name)
    check_recipe(teacher.recipe(), settings.recipe)
    return teacher


def check_recipe(own: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise RecipeMismatchError, naming what differs, unless the two are the same JSON."""
    different = [name for name in {**own, **wanted} if not _are_alike(own.get(name), wanted.get(name))]
    if different:
        told = "; ".join(f"{name} is {own.get(name)!r} there, and {wanted.get(name)!r} here" for name in different)
        raise RecipeMismatchError(
            f"a replica on {socket.gethostname()} would answer by another recipe than this run's ({told}). Give its "
            "machine the same packages and files, or say the option (--dtype, --device) that both can do"
        )


def _are_alike(one: Any, other: Any) -> bool:
    return canonical_json(one) == canonical_json(other)
