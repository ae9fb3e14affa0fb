"""Pages rendered ahead of a teacher in worker processes, so that it never waits for a picture."""

import asyncio
import subprocess
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from multiprocessing.connection import Connection
from threading import local
from typing import TypeAlias, TypeVar

from harvest.rendering.layout import Layout
from harvest.rendering.page import Page
from shared.cores import count_cores
from shared.errors import DataError, TeacherError
from shared.workers import start_module

CHUNK = 8  # texts that go to a worker together: handing one over costs about as much as rendering it
MAX_WORKERS = 8

Item = TypeVar("Item")
Rendered: TypeAlias = list[Page] | DataError  # a text's pages, or why it has none


class RenderPool:
    """Worker processes that render with one layout.

    They start with the first text, and end with `close`, when this object is dropped, and when this process ends, in
    whatever way; after `close` the next text starts others. `workers` is how many there are at most, None for one
    fewer than the processor's cores.
    """

    def __init__(self, layout: Layout, workers: int | None = None) -> None:
        self._layout = layout
        self._count = workers or max(1, min(MAX_WORKERS, count_cores() - 1))
        self._workers: _Workers | None = None

    async def render_ahead(
        self, items: AsyncIterator[Item], find_text: Callable[[Item], str], ahead: int
    ) -> AsyncGenerator[tuple[Item, Rendered], None]:
        """The items in their order, each with what came of its text.

        About `ahead` items, and a chunk for each worker, are rendered before they are taken. Raises TeacherError where
        a worker dies.
        """
        if self._workers is None:
            self._workers = _Workers(self._count)
            self._end = weakref.finalize(self, self._workers.end)
        loop = asyncio.get_running_loop()
        chunks: deque[tuple[list[Item], asyncio.Future[list[Rendered]]]] = deque()
        most = self._count + -(-ahead // CHUNK)
        try:
            async with aclosing(_take_chunks(items)) as taken:
                async for chunk in taken:
                    texts = [find_text(item) for item in chunk]
                    future = loop.run_in_executor(self._workers.threads, self._workers.render, texts, self._layout)
                    chunks.append((chunk, future))
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
        if self._workers is not None:
            self._end()
            self._workers = None


class _Workers:
    """Threads, each with a process of its own that renders for it."""

    def __init__(self, count: int) -> None:
        self.threads = ThreadPoolExecutor(count, "render")
        self._local = local()
        self._processes: list[tuple[subprocess.Popen[bytes], Connection]] = []

    def render(self, texts: Sequence[str], layout: Layout) -> list[Rendered]:
        """Have the process of this thread render `texts`. Raises TeacherError where it died."""
        if not hasattr(self._local, "connection"):
            process, self._local.connection = start_module("harvest.rendering.worker")
            self._processes.append((process, self._local.connection))
        try:
            self._local.connection.send((texts, layout))
            rendered: list[Rendered] = self._local.connection.recv()
        except (EOFError, OSError):
            raise TeacherError(
                "a process that draws pages ended; the system may have ended it where memory ran out. What was "
                "answered is kept, and the same command goes on from there"
            ) from None
        return rendered

    def end(self) -> None:
        """End all of them, when they have rendered what they are at."""
        self.threads.shutdown(cancel_futures=True)
        for process, connection in self._processes:
            connection.close()
            process.wait()
        self._processes.clear()


async def _take_chunks(items: AsyncIterator[Item]) -> AsyncGenerator[list[Item], None]:
    chunk: list[Item] = []
    async for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
