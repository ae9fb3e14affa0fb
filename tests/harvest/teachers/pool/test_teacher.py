"""A pool believes its replicas nothing that it did not ask."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from queue import SimpleQueue

import pytest

from harvest.teachers.base import Reply, Request
from harvest.teachers.pool.messages import Answered, Batch, FromReplica, Room, ToReplica
from harvest.teachers.pool.teacher import PoolTeacher
from shared.errors import Error
from shared.example import Example
from shared.schema import Answer, Status
from tests.harvest.scripted_teacher import ScriptedTeacher

COUNT = 20


def make_reply(request: Request) -> Reply:
    return Reply(request, Answer(Status.OK, reply=request.example.text.upper()))


class Liar:
    """A host of one replica, and the link to it: it answers each request twice, and some that nobody made."""

    def __init__(self) -> None:
        self.said: SimpleQueue[FromReplica | None] = SimpleQueue()
        self.said.put(Room(0, COUNT, starving=True))

    def start(self, number: int) -> "Liar":
        return self

    def check(self) -> None:
        pass

    def send(self, message: ToReplica) -> None:
        assert isinstance(message, Batch)
        replies = [make_reply(request) for request in message.unpack()]
        unknown = make_reply(Request("f" * 64, Example("x", "nobody asked")))
        self.said.put(Answered.pack([unknown, *replies[:5], replies[0]]))
        self.said.put(Answered.pack([*replies, unknown]))

    def receive(self) -> Sequence[FromReplica] | None:
        message = self.said.get()
        return None if message is None else [message]

    def explain_end(self) -> str:
        return "ended"

    def close(self) -> None:
        self.kill()

    def kill(self) -> None:
        self.said.put(None)


async def give() -> AsyncIterator[Request]:
    for number in range(COUNT):
        yield Request(f"{number:064x}", Example(str(number), f"text {number}"))


def test_wrong_keys_and_second_answers_are_refused_and_each_row_has_its_own() -> None:
    async def answer() -> list[Reply]:
        pool = PoolTeacher(ScriptedTeacher(), 1, Liar)
        replies = [reply async for reply in pool.answer(give())]
        await pool.aclose()
        return replies

    replies = asyncio.run(answer())
    assert sorted(reply.request.key for reply in replies) == [f"{number:064x}" for number in range(COUNT)]
    assert all(reply.answer.reply == reply.request.example.text.upper() for reply in replies)


class Garbler(Liar):
    """A replica whose messages cannot be read: it has another version of the package."""

    def receive(self) -> Sequence[FromReplica] | None:
        raise AttributeError("there is no message of that name")


def test_a_replica_that_cannot_be_read_ends_the_run() -> None:
    async def answer() -> None:
        pool = PoolTeacher(ScriptedTeacher(), 1, Garbler)
        async for _ in pool.answer(give()):
            pass

    with pytest.raises(Error, match="there is no message of that name"):
        asyncio.run(asyncio.wait_for(answer(), 20))
