"""How a run is told to stop before its end."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, TypeAlias, TypeVar

import uvloop

from shared.signals import list_heard

DRAIN_SECONDS = 8.0  # docker kills 10 s after it asked, SLURM 30 s

Result = TypeVar("Result")
OnSignal: TypeAlias = Callable[[signal.Signals], None]  # SIGINT is also what no signal asked for


class Interrupt:
    """Tells a run to stop: once, and what is in flight arrives; twice, and nothing is waited for.

    SIGTERM and SIGHUP grant what is in flight some seconds, and mean the same however often they come.

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
    def heard_by(self, stop: OnSignal) -> Iterator[None]:
        """Have the running event loop call `stop` at each request while the block runs, and for those made before."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._tell = partial(loop.call_soon_threadsafe, stop, signal.SIGINT)
            early, self._early = self._early, 0
        for _ in range(early):
            stop(signal.SIGINT)
        try:
            yield
        finally:
            with self._lock:
                self._tell = None


def run_loop(work: Coroutine[Any, Any, Result], interrupt: Interrupt) -> Result:
    """Run a coroutine to its end in an event loop of its own; give what it gives.

    Where the caller's thread runs a loop already, as that of a notebook does, it is another thread's: then
    KeyboardInterrupt requests an interrupt, and what the coroutine comes to by it is raised.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return uvloop.run(work)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(uvloop.run, work)
        while True:
            try:
                return future.result()
            except KeyboardInterrupt:
                if future.done():
                    raise
                interrupt.request()


class SignalInterrupts(Interrupt):
    """An Interrupt that polite signals request, too (shared.signals): for a run in the main thread.

    Outside `heard_by` they are what they are elsewhere.
    """

    @contextmanager
    def heard_by(self, stop: OnSignal) -> Iterator[None]:
        """As Interrupt; a polite signal is a request while the block runs."""
        loop = asyncio.get_running_loop()
        before = {each: signal.getsignal(each) for each in list_heard()}
        with super().heard_by(stop):
            for each in before:
                loop.add_signal_handler(each, stop, each)
            try:
                yield
            finally:
                for each, handler in before.items():
                    loop.remove_signal_handler(each)
                    signal.signal(each, handler or signal.SIG_DFL)
