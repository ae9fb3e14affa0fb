"""Requests in batches."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from harvest.teachers.base import Reply, Request
from harvest.teachers.batches import answer_in_batches
from shared.example import Example
from shared.schema import Answer, Status
from tests.harvest.asking_teachers import stream


def make_requests(texts: Sequence[str]) -> list[Request]:
    return [Request(str(number), Example(str(number), text)) for number, text in enumerate(texts)]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (8, [4, 4]), (10, [4, 4, 2])])
def test_requests_are_answered_in_batches_off_the_event_loop(count: int, sizes: list[int]) -> None:
    seen: list[int] = []
    threads = set()

    def answer(batch: Sequence[Request]) -> list[Reply]:
        seen.append(len(batch))
        threads.add(threading.current_thread())
        return [Reply(request, Answer(Status.OK, reply=request.key)) for request in batch]

    async def collect() -> list[Reply]:
        return [reply async for reply in answer_in_batches(stream(make_requests(["x"] * count)), 4, answer)]

    replies = asyncio.run(collect())
    assert [reply.answer.reply for reply in replies] == [str(number) for number in range(count)]
    assert seen == sizes
    assert threading.main_thread() not in threads


def test_no_more_requests_are_taken_than_the_batches_hold() -> None:
    """Those that were not taken when a run is stopped stay unasked."""
    taken = []

    async def watch(requests: list[Request]):  # type: ignore[no-untyped-def]
        for request in requests:
            taken.append(request)
            yield request

    async def first_reply() -> None:
        replies = answer_in_batches(
            watch(make_requests(["x"] * 100)), 4, lambda batch: [Reply(one, Answer(Status.OK)) for one in batch]
        )
        await anext(replies)
        await replies.aclose()

    asyncio.run(first_reply())
    assert len(taken) == 4
