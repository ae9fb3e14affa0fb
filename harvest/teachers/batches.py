"""Requests taken in batches, for a teacher that computes in this process."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from harvest.teachers.base import Reply, Request


async def answer_in_batches(
    requests: AsyncIterator[Request], size: int, answer: Callable[[Sequence[Request]], list[Reply]]
) -> AsyncGenerator[Reply, None]:
    """Yield the replies of `answer`, which is called in a thread with up to `size` requests, one call at a time."""
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
