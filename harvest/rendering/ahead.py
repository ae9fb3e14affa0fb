"""Pages drawn ahead of a teacher in worker processes, so that it never waits for a picture."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from multiprocessing import get_context

from harvest.rendering import Layout, draw, encode
from harvest.teachers.base import Request
from shared.errors import DataError
from shared.workers import end_with_parent

CHUNK = 8  # texts that go to a worker together: handing one over costs about as much as drawing it
MAX_WORKERS = 8


@dataclass(frozen=True, slots=True)
class DrawnPage:
    """A page: 8-bit greyscale pixels, row by row; `sha256` is that of its PNG file."""

    width: int
    height: int
    pixels: bytes
    sha256: str


def draw_texts(texts: Sequence[str], layout: Layout) -> list[list[DrawnPage] | str]:
    """The pages of each text, or why it cannot be drawn."""
    drawn: list[list[DrawnPage] | str] = []
    for text in texts:
        try:
            pages = draw(text, layout)
        except DataError as error:
            drawn.append(str(error))
        else:
            size = layout.width, layout.height
            drawn.append([DrawnPage(*size, page.pixels.tobytes(), encode(page).sha256) for page in pages])
    return drawn


class Drawers:
    """Worker processes that draw. Started with the first text; they end with `close`, and with this process."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._workers = max(1, min(MAX_WORKERS, (os.cpu_count() or 1) - 1))
        self._pool: ProcessPoolExecutor | None = None

    async def draw_ahead(
        self, requests: AsyncIterator[Request], find_text: Callable[[Request], str], ahead: int
    ) -> AsyncGenerator[tuple[Request, list[DrawnPage] | str]]:
        """The requests in their order, each with the pages of its text or with why it has none.

        About `ahead` requests, and a chunk for each worker, are drawn before they are taken.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._workers, get_context("spawn"), end_with_parent)
        loop = asyncio.get_running_loop()
        chunks: deque[tuple[list[Request], asyncio.Future[list[list[DrawnPage] | str]]]] = deque()
        most = self._workers + -(-ahead // CHUNK)
        try:
            async with aclosing(_take_chunks(requests)) as taken:
                async for chunk in taken:
                    texts = [find_text(request) for request in chunk]
                    chunks.append((chunk, loop.run_in_executor(self._pool, draw_texts, texts, self._layout)))
                    if len(chunks) >= most:
                        for pair in zip(chunks[0][0], await chunks.popleft()[1], strict=True):
                            yield pair
            while chunks:
                for pair in zip(chunks[0][0], await chunks.popleft()[1], strict=True):
                    yield pair
        finally:
            for _, future in chunks:
                future.cancel()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


async def _take_chunks(requests: AsyncIterator[Request]) -> AsyncGenerator[list[Request]]:
    chunk: list[Request] = []
    async for request in requests:
        chunk.append(request)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
