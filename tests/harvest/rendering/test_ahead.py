import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from harvest.rendering import Layout, render
from harvest.rendering.ahead import CHUNK, Drawers, DrawnPage
from harvest.teachers.base import Request
from shared.example import Example

LAYOUT = Layout(200, 200)
TEXTS = [f"text number {i} " * (1 + i % 9) for i in range(5 * CHUNK + 3)]


@pytest.fixture
def drawers() -> Iterator[Drawers]:
    drawers = Drawers(LAYOUT)
    yield drawers
    drawers.close()


async def make_requests(texts: list[str], taken: list[str]) -> AsyncIterator[Request]:
    for text in texts:
        taken.append(text)
        yield Request(text, Example(text, text))


def test_pages_come_in_order_and_are_those_that_are_drawn_here(drawers: Drawers) -> None:
    texts = [*TEXTS, "\U0001f600 cannot be drawn", "long " * 400]

    async def collect() -> list[tuple[Request, list[DrawnPage] | str]]:
        drawn = drawers.draw_ahead(make_requests(texts, []), lambda request: request.example.text, 8)
        return [pair async for pair in drawn]

    pairs = asyncio.run(collect())
    assert [request.key for request, _ in pairs] == texts
    assert isinstance(pairs[-2][1], str)
    assert "1F600" in pairs[-2][1].upper()
    for request, pages in (pairs[0], pairs[9], pairs[-1]):
        assert not isinstance(pages, str)
        assert [page.sha256 for page in pages] == [page.sha256 for page in render(request.example.text, LAYOUT)]
        assert {len(page.pixels) for page in pages} == {200 * 200}
        assert np.frombuffer(pages[0].pixels, np.uint8).min() < 128
    assert len(pairs[-1][1]) > 1


def test_no_more_is_taken_than_is_drawn_ahead(drawers: Drawers) -> None:
    taken: list[str] = []

    async def take_one() -> None:
        drawn = drawers.draw_ahead(make_requests(TEXTS, taken), lambda request: request.example.text, CHUNK)
        await anext(drawn)
        await drawn.aclose()

    asyncio.run(take_one())
    assert len(taken) <= CHUNK * (1 + drawers._workers)


SCRIPT = """
import asyncio, time
from tests.harvest.rendering.test_ahead import LAYOUT, TEXTS, Drawers, make_requests

async def main():
    drawers = Drawers(LAYOUT)
    async for _ in drawers.draw_ahead(make_requests(TEXTS, []), lambda request: request.example.text, 8):
        print(*(process.pid for process in drawers._pool._processes.values()), flush=True)
        time.sleep(100)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert workers
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_is_started_before_the_first_text() -> None:
    drawers = Drawers(LAYOUT)
    assert drawers._pool is None
    drawers.close()
    assert not multiprocessing.active_children()
