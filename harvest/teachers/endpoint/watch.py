"""Bounds how long requests are waited for, by one timer for all: one for each takes more of a core than its reply."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Awaited = TypeVar("Awaited")

LOOK_SECONDS = 0.1  # between two looks: what is over is ended so much later at most


class Watch:
    """Ends what is waited for too long. One event loop."""

    def __init__(self) -> None:
        self._until: dict[asyncio.Task[object], float] = {}  # loop time, of what is waited for
        self._late: dict[asyncio.Task[object], int] = {}  # what was ended, and how often it had been cancelled before
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, awaited: Awaitable[Awaited], seconds: float) -> Awaited:
        """Await, in a task that awaits nothing else here. Raises TimeoutError once that took so many seconds."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._until[task] = loop.time() + seconds
        if self._timer is None:
            self._timer = loop.call_later(LOOK_SECONDS, self.look)
        try:
            return await awaited
        except asyncio.CancelledError as error:
            # As asyncio.timeout does: whoever else cancels the task meanwhile is heard.
            if task in self._late and task.uncancel() <= self._late[task]:
                raise TimeoutError from error
            raise
        finally:
            self._until.pop(task, None)
            self._late.pop(task, None)

    def look(self) -> None:
        """End what is over, and look again later where something is waited for."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [task for task, until in self._until.items() if until <= now]:
            del self._until[task]
            self._late[task] = task.cancelling()
            task.cancel()
        self._timer = loop.call_later(LOOK_SECONDS, self.look) if self._until else None
