"""What has arrived is kept, whatever ends the run: it is paid for."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from harvest.asking.interrupt import Interrupt
from harvest.teachers.base import Reply, Request
from harvest.teachers.endpoint.client import ChatRequest, Client, Exchange
from harvest.teachers.endpoint.limiter import Slot
from harvest.teachers.endpoint.teacher import EndpointTeacher
from shared.errors import DataError, TeacherError
from shared.example import Example
from shared.schema import Status
from tests.harvest.asking.test_engine import harvest, make_task, read_rows
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs
from tests.harvest.teachers.endpoint.endpoint_runs import make_examples, make_teacher, stream_requests

ANSWERED, ASKED = 8, 12


class Halting(FaultServer):
    """Answers the first ANSWERED requests, and no other."""

    def handle(self, connection: Any, asked: Asked) -> None:
        if len(self.requests) < ANSWERED:
            super().handle(connection, asked)
        else:
            self.requests.append(asked)

    def wait(self) -> None:
        """Wait until all were asked, and the client has what was answered."""
        while len(self.requests) < ASKED or self.count.answered.total() < ANSWERED:
            time.sleep(0.01)
        time.sleep(0.5)


async def abandon(server: Halting, teacher: EndpointTeacher, requests: AsyncIterator[Request]) -> list[Reply]:
    """Take one reply, and no other before what is in flight is broken off; give all replies."""
    async with aclosing(teacher.answer(requests)) as stream:
        replies = [await anext(stream)]
        await asyncio.to_thread(server.wait)
        teacher.abandon()
        return replies + [reply async for reply in stream]


def test_what_has_arrived_is_handed_over_where_the_rest_is_broken_off() -> None:
    with Halting() as server:
        teacher = make_teacher(server)
        replies = asyncio.run(abandon(server, teacher, stream_requests(teacher, make_examples(ASKED))))
    assert len({reply.request.key for reply in replies}) == ANSWERED
    assert all(reply.answer.status is Status.OK for reply in replies)


@pytest.mark.parametrize("votes", [1, 3])
def test_a_reply_that_is_not_read_yet_when_the_run_is_left_is_handed_over(
    monkeypatch: pytest.MonkeyPatch, votes: int
) -> None:
    ask = Client.ask

    async def leave(client: Client, request: ChatRequest, slot: Slot | None = None) -> Exchange | None:
        exchange = await ask(client, request, slot)
        teacher.abandon()
        return exchange

    async def collect_all() -> list[Reply]:
        async with aclosing(teacher.answer(stream_requests(teacher, make_examples(1)))) as stream:
            return [reply async for reply in stream]

    monkeypatch.setattr(Client, "ask", leave)
    with FaultServer(answer=lambda _: make_reply("positive", spread_logprobs(0.9))) as server:
        scoring: dict[str, Any] = {"dialect": "ollama", "scoring": "votes", "votes": votes} if votes > 1 else {}
        teacher = make_teacher(server, **scoring)
        (reply,) = asyncio.run(asyncio.wait_for(collect_all(), 10))
    assert reply.answer.status is Status.OK
    assert len(server.requests) == 1  # no other vote, either


def test_what_is_left_before_anything_was_sent_ends() -> None:
    async def leave() -> list[Reply]:
        teacher = make_teacher(server)
        async with aclosing(teacher.answer(stream_requests(teacher, make_examples(ASKED)))) as stream:
            first = asyncio.ensure_future(anext(stream, None))
            while not first.done():  # from before its first step on
                teacher.abandon()
                await asyncio.sleep(0)
            reply = await first
            return [] if reply is None else [reply, *[each async for each in stream]]

    with FaultServer() as server:
        assert asyncio.run(asyncio.wait_for(leave(), 10)) == []
    assert not server.requests


def test_a_run_that_is_left_keeps_the_rows_that_have_arrived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, interrupt = [f"text {i}" for i in range(ASKED)], Interrupt()

    def leave(server: Halting) -> None:
        server.wait()
        interrupt.request()
        interrupt.request()

    with Halting() as server:
        loaded = make_task(tmp_path, texts)
        teacher = make_teacher(server, loaded.task)
        threading.Thread(target=leave, args=[server], daemon=True).start()
        with pytest.raises(asyncio.CancelledError):
            harvest(tmp_path / "data" / "t", loaded, teacher, interrupt=interrupt, splits=("train",))
    rows = read_rows(tmp_path / "data" / "t", teacher=teacher.name)
    assert len(rows) == ANSWERED
    assert f"{ASKED - ANSWERED} requests were left behind in flight" in capsys.readouterr().err


class Votes(FaultServer):
    """Gives one vote a request, and to a row's second request what `second` names; nothing, where that is empty."""

    def __init__(self, second: str) -> None:
        super().__init__(answer=lambda _: make_reply("positive", {}))
        self._second = second

    def choose(self, key: str, attempt: int) -> str:
        return self._second if "-" in key else "ok"

    def handle(self, connection: Any, asked: Asked) -> None:
        if self._second or "-" not in asked.key:
            super().handle(connection, asked)
        else:
            self.requests.append(asked)


def collect(teacher: EndpointTeacher, examples: Iterable[Example]) -> tuple[list[Reply], Exception | None]:
    """All replies that come before the stream ends, and what it ends with."""
    replies: list[Reply] = []

    async def run() -> None:
        take = replies.append
        async with aclosing(teacher.answer(stream_requests(teacher, examples))) as stream:
            async for reply in stream:
                take(reply)

    try:
        asyncio.run(run())
    except (TeacherError, DataError) as error:
        return replies, error
    return replies, None


def test_votes_that_came_are_used_where_a_later_one_ends_the_run() -> None:
    with Votes("402 key") as server:
        teacher = make_teacher(server, dialect="anthropic", scoring="votes", votes=3)
        replies, error = collect(teacher, make_examples(1))
    assert isinstance(error, TeacherError)
    assert "402" in str(error)
    (reply,) = replies
    assert (reply.answer.status, reply.answer.label_logprobs) == (Status.OK, (-100.0, 0.0))


def test_votes_that_came_are_used_where_the_next_is_broken_off() -> None:
    async def leave() -> list[Reply]:
        teacher = make_teacher(server, dialect="anthropic", scoring="votes", votes=3)
        async with aclosing(teacher.answer(stream_requests(teacher, make_examples(1)))) as stream:
            first = asyncio.ensure_future(anext(stream))
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
            teacher.abandon()
            return [await first, *[reply async for reply in stream]]

    with Votes("") as server:
        (reply,) = asyncio.run(leave())
    assert (reply.answer.status, reply.answer.label_logprobs) == (Status.OK, (-100.0, 0.0))


def test_a_source_that_cannot_be_read_on_ends_the_run_after_what_is_in_flight() -> None:
    def read() -> Iterable[Example]:
        yield from make_examples(5)
        raise DataError("row 6 is none")

    with FaultServer(latency=0.2, answer=lambda _: make_reply("positive", spread_logprobs(0.9))) as server:
        replies, error = collect(make_teacher(server), read())
    assert isinstance(error, DataError)
    assert len(replies) == 5
