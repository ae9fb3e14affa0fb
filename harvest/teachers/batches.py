"""What the vision teachers that run in this process share: requests taken in batches, and drawn."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from harvest.chat.prompts import lay_out
from harvest.rendering import Drawing, Layout, draw, encode, prepare_text
from harvest.teachers.base import Reply, Request
from shared.errors import DataError
from shared.example import Example
from shared.schema import Answer, Status


@dataclass(frozen=True, slots=True)
class DrawnRequest:
    """A request and its pages. `image_sha256` are the hashes of the pages as PNG files."""

    request: Request
    drawings: Sequence[Drawing]
    image_sha256: Sequence[str]


async def answer_in_batches(
    requests: AsyncIterator[Request], size: int, answer: Callable[[Sequence[Request]], list[Reply]]
) -> AsyncGenerator[Reply, None]:
    """The replies of `answer`, which is called in a thread with up to `size` requests at a time, one call at a time."""
    batch: list[Request] = []
    async for request in requests:
        batch.append(request)
        if len(batch) == size:
            for reply in await asyncio.to_thread(answer, batch):
                yield reply
            batch = []
    if batch:
        for reply in await asyncio.to_thread(answer, batch):
            yield reply


def describe_drawn(example: Example) -> Mapping[str, Any]:
    """The content of a request whose text is drawn. Raises DataError where a character of it cannot be."""
    text = lay_out(example)
    prepare_text(text)
    return {"draw": text}


def answer_drawn(
    requests: Sequence[Request], layout: Layout, compute: Callable[[Sequence[DrawnRequest]], Sequence[Answer]]
) -> list[Reply]:
    """Replies to `requests`: what `compute` makes of those that can be drawn, and failed ones to the others.

    Pictures and bill are added here. The time of a batch is shared out evenly.
    """
    started, asked_at = time.perf_counter(), datetime.now(UTC)
    drawn, replies = draw_requests(requests, layout)
    answers = compute(drawn)
    latency_ms = (time.perf_counter() - started) * 1000 / len(requests)
    for one, answer in zip(drawn, answers, strict=True):
        bill = replace(answer, image_sha256=one.image_sha256, latency_ms=latency_ms, asked_at=asked_at, attempts=1)
        replies.append(Reply(one.request, bill))
    return replies


def draw_requests(requests: Sequence[Request], layout: Layout) -> tuple[list[DrawnRequest], list[Reply]]:
    """The requests with their pages, and failed replies to those that cannot be drawn."""
    drawn, failed = [], []
    for request in requests:
        try:
            drawings = draw(lay_out(request.example), layout)
        except DataError as error:
            failed.append(Reply(request, Answer(Status.FAILED, error=str(error))))
        else:
            drawn.append(DrawnRequest(request, drawings, [encode(drawing).sha256 for drawing in drawings]))
    return drawn, failed
