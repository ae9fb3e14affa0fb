"""What the vision teachers that run in this process share: requests taken in batches, and drawn."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from harvest.prompts import lay_out
from harvest.rendering import Drawing, Layout, draw, encode
from harvest.teachers.base import Reply, Request
from shared.errors import DataError
from shared.row import Answer, Status


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
