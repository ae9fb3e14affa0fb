"""How a run is told to stop before its end."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock


class Interrupt:
    """Tells a run to stop: once, and what is in flight arrives; twice, and nothing is waited for.

    `request` may be called from any thread, and before the run has begun.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._early = 0  # requests that nobody has heard yet
        self._tell: Callable[[], object] | None = None

    def request(self) -> None:
        """Ask the run to stop."""
        with self._lock:
            if self._tell is None:
                self._early += 1
            else:
                self._tell()

    @contextmanager
    def heard_by(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have the running event loop call `stop` at each request while the block runs, and for those made before."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._tell = lambda: loop.call_soon_threadsafe(stop)
            early, self._early = self._early, 0
        for _ in range(early):
            stop()
        try:
            yield
        finally:
            with self._lock:
                self._tell = None


class KeyboardInterrupts(Interrupt):
    """An Interrupt that is requested at the keyboard too, by SIGINT: for a run in the main thread.

    Outside `heard_by` SIGINT is what it is elsewhere: a KeyboardInterrupt.
    """

    @contextmanager
    def heard_by(self, stop: Callable[[], None]) -> Iterator[None]:
        """As Interrupt; SIGINT is a request while the block runs."""
        loop = asyncio.get_running_loop()
        with super().heard_by(stop):
            loop.add_signal_handler(signal.SIGINT, stop)
            try:
                yield
            finally:
                loop.remove_signal_handler(signal.SIGINT)
