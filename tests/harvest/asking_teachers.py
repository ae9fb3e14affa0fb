"""Asks a teacher without the engine, and makes requests of plain texts."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from harvest.teachers.base import Reply, Request, Teacher
from shared.example import Example
from shared.schema import Answer


async def stream(requests: Iterable[Request]) -> AsyncIterator[Request]:
    for request in requests:
        yield request


def ask(teacher: Teacher, examples: Sequence[Example | str]) -> list[Answer]:
    """The teacher's answers in the order of `examples`; a string is an example with that text."""
    requests = [
        Request(str(number), example if isinstance(example, Example) else Example(str(number), example))
        for number, example in enumerate(examples)
    ]

    async def collect() -> list[Reply]:
        return [reply async for reply in teacher.answer(stream(requests))]

    replies = {reply.request.key: reply.answer for reply in asyncio.run(collect())}
    assert len(replies) == len(requests)
    return [replies[request.key] for request in requests]
