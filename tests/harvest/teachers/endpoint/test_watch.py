"""What is waited for too long ends in a TimeoutError; whoever else cancels is heard."""

import asyncio
import time

import pytest

from harvest.teachers.endpoint.watch import LOOK_SECONDS, Watch


async def wait_for(watch: Watch, pause: float, seconds: float) -> str:
    await watch.wait(asyncio.sleep(pause), seconds)
    return "came"


def test_each_is_waited_for_as_long_as_it_was_given() -> None:
    async def run() -> list[str | BaseException]:
        watch = Watch()
        waits = [wait_for(watch, 0.01, 0.02), wait_for(watch, 60.0, 0.02), wait_for(watch, 0.3, 60.0)]
        return await asyncio.gather(*waits, return_exceptions=True)

    started = time.monotonic()
    first, late, last = asyncio.run(run())
    assert (first, last) == ("came", "came")
    assert isinstance(late, TimeoutError)
    assert time.monotonic() - started < 10


def test_one_that_begins_when_nothing_is_waited_for_any_more_is_watched_too() -> None:
    async def run() -> None:
        watch = Watch()
        await wait_for(watch, 0.0, 1.0)
        await asyncio.sleep(3 * LOOK_SECONDS)
        with pytest.raises(TimeoutError):
            await wait_for(watch, 60.0, 0.0)
        await wait_for(watch, 0.0, 1.0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(run())


@pytest.mark.parametrize("is_late", [True, False], ids=["late", "in time"])
def test_a_cancel_by_another_is_no_timeout(is_late: bool) -> None:
    async def run() -> None:
        watch = Watch()
        task = asyncio.create_task(wait_for(watch, 60.0, 0.0 if is_late else 60.0))
        await asyncio.sleep(0)
        if is_late:
            watch.look()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())
