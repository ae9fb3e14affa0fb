"""A teacher made of replicas of one teacher: the protocol before them, and what hands requests out behind it.

Each replica says how many requests it has room for, as its teacher takes them, so none is handed more than it works
on; who is free gets the next. Replies come in the order in which they are ready.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from queue import Empty, SimpleQueue
from threading import Thread

import pyarrow as pa

from harvest.teachers.base import Reply, ReplyBatch, Request, Teacher
from harvest.teachers.pool.hosts import Host, Link
from harvest.teachers.pool.messages import Alive, Answered, Batch, Failure, FromReplica, Room, Said, Up
from harvest.teachers.pool.seats import SUSPECTED_AFTER, Seat, limit_share
from harvest.teachers.pool.stream import Stream
from harvest.teachers.wrapping import WrappedTeacher
from shared.console import say
from shared.errors import Error, TeacherError, UsageError
from shared.events import emit
from shared.failures import explain
from shared.schema import Answer, Status, batch_to_answers

PROGRESS_SECONDS = 0.2  # how old what is shown of the replicas may be
SHOWN_SEATS = 8
LOOK_SECONDS, SILENT_LOOKS = 10.0, 60  # a replica that says not even that it lives, in so many looks, hangs
DEADLY = (
    f"{SUSPECTED_AFTER + 1} replicas ended while they were asked this row, the last one asked nothing else; the others "
    "were asked again and answered"
)


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing was heard of a replica for long."""


class PoolTeacher(WrappedTeacher):
    """`count` replicas of `teacher`, which answers nothing itself: it says what is asked, and what that takes.

    A Teacher itself. `make_host` is called once there is something to ask.
    """

    remote = None

    def __init__(self, teacher: Teacher, count: int, make_host: Callable[[], Host]) -> None:
        super().__init__(teacher)
        self._make_host = make_host
        self._host: Host | None = None
        self._seats = [Seat(number) for number in range(count)]
        self._links: dict[Seat, Link] = {}
        self._news: SimpleQueue[tuple[Seat, Link, FromReplica | Silent | None]] = SimpleQueue()
        self._ended: tuple[Seat, Link, Failure | Silent | None] | None = None  # that is still to be acted upon
        self._looked_at = time.monotonic()
        self._wake: Callable[[], object] | None = None
        self._expected: int | None = None
        self._said: set[str] = set()
        self._problems: list[Error] = []
        self._progress, self._progress_at = "", 0.0

    @property
    def progress(self) -> str:
        """How many replicas answer, and how many rows each has answered; by number where there are few."""
        if time.monotonic() - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = time.monotonic()
            rows = ", ".join(f"{seat.rows:,}" for seat in self._seats) if len(self._seats) <= SHOWN_SEATS else ""
            answering = sum(seat.proven for seat in self._seats)
            self._progress = f"{answering} of {len(self._seats)} replicas answer{f': {rows}' if rows else ''}"
        return self._progress

    def expect(self, count: int) -> None:
        """Say how many requests the next stream has, so that the last ones are shared out evenly."""
        self._expected = count

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Have the replicas answer, one by one: see answer_batches. A batch's files come with its first reply."""
        async with aclosing(self.answer_batches(requests)) as batches:
            async for batch in batches:
                pictures, answers = batch.pictures, batch.answers
                if isinstance(answers, pa.RecordBatch):
                    answers = list(batch_to_answers(answers))
                for request, answer in zip(batch.requests, answers, strict=True):
                    yield Reply(request, answer, pictures, batch.audio.get(request.key))
                    pictures = {}

    async def answer_batches(self, requests: AsyncIterator[Request]) -> AsyncGenerator[ReplyBatch, None]:
        """Have the replicas answer; they start with the first request, and stay for later calls.

        A replica that dies is replaced, and another is asked what it has not answered. Raises the teacher's own error
        where no replica can begin, and TeacherError where each dies again and again.
        """
        stream = Stream(requests, self._expected)
        self._expected = None
        if await stream.is_over():
            return
        arrived = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, arrived.set)
        try:
            if self._host is None:
                self._host = await asyncio.to_thread(self._make_host)
            for seat in self._seats:
                if seat not in self._links and not seat.is_empty:
                    await self._start(seat, self._host)
            while True:
                arrived.clear()
                while batches := await self._take_news(stream):
                    for batch in batches:
                        yield batch
                for seat in self._seats:
                    await self._hand_out(seat, stream)
                if stream.is_empty and not any(seat.asked for seat in self._seats):
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), LOOK_SECONDS)
                await self._look()
        except BaseException:
            self._kill()  # nobody waits for what they are at
            raise
        finally:
            self._wake = None

    async def aclose(self) -> None:
        """End the replicas, each with what its teacher has started."""
        links = list(self._links.values())
        self._links.clear()
        if links:
            with ThreadPoolExecutor(len(links)) as threads:
                list(threads.map(methodcaller("close"), links))
            self._say_rows()
        if self._host is not None:
            self._host.close()
            self._host = None
        await self._teacher.aclose()

    async def _start(self, seat: Seat, host: Host) -> None:
        link = await asyncio.to_thread(host.start, seat.number)
        self._links[seat] = link
        Thread(target=self._receive, args=(seat, link), daemon=True).start()

    def _receive(self, seat: Seat, link: Link) -> None:
        """Put what a replica says where `answer` finds it; None at its end."""
        while True:
            messages: Sequence[FromReplica] | None
            try:
                messages = link.receive()
            except Exception as error:  # what it says cannot be read: a run would wait for it
                messages = [Failure.of(explain(error))]
            for message in (None,) if messages is None else messages:
                self._news.put((seat, link, message))
            if (wake := self._wake) is not None:
                with suppress(RuntimeError):  # the loop is closed: the next call finds the news
                    wake()
            if messages is None or isinstance(messages[-1], Failure):
                return

    async def _take_news(self, stream: Stream) -> list[ReplyBatch]:
        """Take what has arrived: give the replies, and act upon the rest. None are left once it gives none."""
        batches: list[ReplyBatch] = []
        while self._ended is None or not batches:  # replies go before what may end the run
            try:
                seat, link, message = self._ended or self._news.get_nowait()
            except Empty:
                break
            if self._links.get(seat) is not link:
                self._ended = None
                continue  # of a replica that was replaced
            seat.silence = 0
            if isinstance(message, Answered):
                self._problems.clear()
                batches += _match(seat, message, stream)
            elif isinstance(message, Room):
                seat.take_room(message.stream, message.count, message.starving)
            elif isinstance(message, Up):
                emit("replica", number=seat.number + 1, state="up", machine=message.machine)
            elif isinstance(message, Said):
                self._say_once(seat, message.text)
            elif isinstance(message, Alive):
                pass
            elif batches:
                self._ended = seat, link, message
            else:
                self._ended = None
                if blamed := await self._replace(seat, link, message, stream):
                    failed = [Answer(Status.FAILED, error=DEADLY, attempts=1)] * len(blamed)
                    batches.append(ReplyBatch(blamed, failed))
        return batches

    async def _look(self) -> None:
        """End the replicas that have requests and from which nothing was heard for long, not even that they live.

        Looks are counted, not seconds: those in which this process was stopped are no silence of theirs. Raises Error
        where what the replicas share is gone.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if self._host is not None:
            await asyncio.to_thread(self._host.check)
        for seat, link in self._links.items():
            seat.silence = seat.silence + 1 if seat.asked else 0
            if seat.silence > SILENT_LOOKS:
                self._news.put((seat, link, Silent()))

    def _say_once(self, seat: Seat, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(f"replica {seat.number + 1}: {text}")

    async def _replace(self, seat: Seat, link: Link, end: Failure | Silent | None, stream: Stream) -> list[Request]:
        """Have another replica take the seat of one that has ended; give the requests that it ended of.

        Raises the error of the first where no seat is taken any more, and UsageError where nothing was answered yet.
        """
        del self._links[seat]
        if isinstance(end, Failure):
            why = f"cannot go on: {end.error}"
            if isinstance(end.error, UsageError) and not any(one.rows for one in self._seats):
                raise end.error
        elif isinstance(end, Silent):
            why = f"hangs: nothing was heard of it for {SILENT_LOOKS * LOOK_SECONDS:g} s, and it was killed"
        else:
            why = await asyncio.to_thread(link.explain_end)
        await asyncio.to_thread(link.kill)
        error = end.error if isinstance(end, Failure) else TeacherError(f"the teacher's process {why}")
        self._problems.append(error)
        lost = len(seat.asked)
        # One that says at its first request that it cannot work would say so again.
        may_stay = not isinstance(end, Failure) or seat.rows > 0
        blamed = stream.waiting.take_deaths(seat, may_stay=may_stay)
        emit("replica", number=seat.number + 1, state="ended", text=why, returned=lost - len(blamed))
        if all(one.is_empty for one in self._seats):
            raise self._explain_problems()
        goes_on = "the others go on without it" if seat.is_empty else "another takes its place"
        self._say_once(seat, f"{why}; {goes_on}, and {lost - len(blamed):,} requests are asked again")
        if not seat.is_empty and self._host is not None:
            await self._start(seat, self._host)
        return blamed

    def _explain_problems(self) -> Error:
        """The error of the first replica that could not work since one answered, once, whatever the others said."""
        first = self._problems[0]
        if len(self._seats) == 1:
            return first
        same = {str(one) for one in self._problems} == {str(first)}
        what = f"none of {len(self._seats)} replicas can work; {'each' if same else 'the first'} said"
        return type(first)(f"{what}: {first}")

    async def _hand_out(self, seat: Seat, stream: Stream) -> None:
        """Ask a replica as much as it takes, and may be asked."""
        if seat.is_empty or not (seat.room or seat.starving):
            return
        on_trial = seat.is_on_trial
        share = limit_share(seat, stream.left, self._seats)
        asked = await stream.take(share, may_suspect=not seat.asked)
        # What a teacher gathers is answered once it knows that no more comes: at the end, or where its share is full.
        is_last = await stream.is_over() or on_trial or (seat.starving and not share)
        if not asked and not (is_last and seat.asked):
            return
        seat.ask(asked)
        if is_last:
            seat.end_stream()
        link, batch = self._links[seat], Batch.pack(asked, is_last)
        try:
            await asyncio.wait_for(asyncio.to_thread(link.send, batch), LOOK_SECONDS * SILENT_LOOKS)
        except TimeoutError:  # it does not even read
            self._news.put((seat, link, Silent()))

    def _kill(self) -> None:
        for link in self._links.values():
            link.kill()
        self._links.clear()
        for seat in self._seats:
            seat.restart()

    def _say_rows(self) -> None:
        """Say how many rows each replica has answered."""
        rows = ", ".join(f"{seat.rows:,}" for seat in self._seats[:SHOWN_SEATS])
        more = "" if len(self._seats) <= SHOWN_SEATS else ", ..."
        say(f"rows by replica: {rows}{more}")
        for seat in self._seats:
            emit("replica", number=seat.number + 1, state="done", rows=seat.rows)


def _match(seat: Seat, message: Answered, stream: Stream) -> Iterator[ReplyBatch]:
    """The replies of a message, without those to what the replica of `seat` was not asked, or has answered before."""
    matched = [stream.waiting.answer(seat, key) for key in message.keys]
    requests = [request for request in matched if request is not None]
    answers = message.unpack()
    if len(requests) < len(matched):
        answers = answers.filter(pa.array([request is not None for request in matched]))
    if requests:
        yield ReplyBatch(requests, answers, message.pictures, message.audio)
