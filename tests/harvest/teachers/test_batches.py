"""Batches of requests, their drawing, and batches of like length."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from harvest.rendering import Layout, render
from harvest.teachers.base import Reply, Request
from harvest.teachers.batches import answer_in_batches, draw_requests
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


def test_drawn_requests_carry_the_hashes_of_their_pages() -> None:
    example = Example("a", "a premise", text_pair="a hypothesis")
    (one, long), failed = draw_requests([Request("0", example), *make_requests(["long " * 900])], Layout())
    assert one.image_sha256 == [page.sha256 for page in render("a premise\n\na hypothesis", Layout())]
    assert len(long.image_sha256) == len(long.drawings) > 1
    assert failed == []


def test_a_request_that_cannot_be_drawn_fails_alone() -> None:
    drawn, failed = draw_requests(make_requests(["good", "bad 😀", "fine"]), Layout())
    assert [one.request.key for one in drawn] == ["0", "2"]
    assert [(reply.request.key, reply.answer.status) for reply in failed] == [("1", Status.FAILED)]
    assert "U+1F600 GRINNING FACE" in (failed[0].answer.error or "")
