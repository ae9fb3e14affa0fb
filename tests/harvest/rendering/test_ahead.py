"""Pages rendered ahead: the same as here, in order, not too many, and by processes that end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from harvest.rendering import Layout, render
from harvest.rendering.ahead import CHUNK, Rendered, RenderPool
from shared.errors import DataError, TeacherError
from tests.harvest.children import list_children

LAYOUT = Layout(200, 200)
TEXTS = [f"text number {i} " * (1 + i % 9) for i in range(5 * CHUNK + 3)]


@pytest.fixture
def pool() -> Iterator[RenderPool]:
    pool = RenderPool(LAYOUT, workers=2)
    yield pool
    pool.close()


async def make_stream(texts: list[str], taken: list[str]) -> AsyncIterator[str]:
    for text in texts:
        taken.append(text)
        yield text


def test_pages_come_in_order_and_are_those_that_are_rendered_here(pool: RenderPool) -> None:
    texts = [*TEXTS, "\U0001f600 cannot be drawn", "long " * 400]

    async def collect() -> list[tuple[str, Rendered]]:
        return [pair async for pair in pool.render_ahead(make_stream(texts, []), str, 8)]

    pairs = asyncio.run(collect())
    assert [text for text, _ in pairs] == texts
    assert isinstance(pairs[-2][1], DataError)
    assert "1F600" in str(pairs[-2][1])
    for text, pages in (pairs[0], pairs[9], pairs[-1]):
        assert not isinstance(pages, DataError)
        for page, expected in zip(pages, render(text, LAYOUT), strict=True):
            assert (page.sha256, page.png, page.lines) == (expected.sha256, expected.png, expected.lines)
            assert np.array_equal(page.pixels, expected.pixels)
    assert not isinstance(pairs[-1][1], DataError)
    assert len(pairs[-1][1]) > 1


def test_no_more_is_taken_than_is_rendered_ahead(pool: RenderPool) -> None:
    taken: list[str] = []

    async def take_one() -> None:
        rendered = pool.render_ahead(make_stream(TEXTS, taken), str, CHUNK)
        await anext(rendered)
        await rendered.aclose()

    asyncio.run(take_one())
    assert len(taken) == CHUNK * (2 + 1)


SCRIPT = """
import asyncio, time
from tests.harvest.rendering.test_ahead import LAYOUT, TEXTS, RenderPool, make_stream

async def main():
    pool = RenderPool(LAYOUT)
    async for _ in pool.render_ahead(make_stream(TEXTS, []), str, 8):
        print("rendered", flush=True)
        time.sleep(1000)

asyncio.run(main())  # not behind `if __name__`: a worker runs nothing of a user's script
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "rendered\n"
        parent.send_signal(signal.SIGKILL)
        # Workers have the parent's standard error: it ends when the last of them does.
        assert parent.communicate(timeout=60) == ("", "")


def test_an_interrupt_at_the_keyboard_reaches_no_worker(pool: RenderPool) -> None:
    before = list_children()

    async def collect() -> list[str]:
        texts = []
        async for text, _ in pool.render_ahead(make_stream(TEXTS, []), str, CHUNK):
            for worker in list_children() - before:
                os.kill(worker, signal.SIGINT)
            texts.append(text)
        return texts

    assert asyncio.run(collect()) == TEXTS


def test_a_worker_that_dies_is_an_error_that_says_so(pool: RenderPool) -> None:
    before = list_children()

    async def collect() -> None:
        async for _ in pool.render_ahead(make_stream(TEXTS, []), str, CHUNK):
            for worker in list_children() - before:
                os.kill(worker, signal.SIGKILL)

    with pytest.raises(TeacherError, match="a process that draws pages ended"):
        asyncio.run(collect())


def test_workers_start_with_the_first_text_end_with_close_and_start_again() -> None:
    before = list_children()
    pool = RenderPool(LAYOUT)
    assert list_children() == before

    async def render_all() -> int:
        return len([pair async for pair in pool.render_ahead(make_stream(TEXTS[:3], []), str, 8)])

    for _ in range(2):
        assert asyncio.run(render_all()) == 3
        assert list_children() > before
        pool.close()
        assert list_children() == before
