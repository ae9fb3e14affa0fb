"""Signals that ask a process politely to end: Ctrl-C, `docker stop`, SLURM's warning, a terminal that is closed.

Docker grants 10 s between SIGTERM and SIGKILL, SLURM 30 s (KillWait). A terminal that is closed sends SIGHUP twice: the
kernel does, and the shell does.
"""

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP)  # another process, or the system, wants this one to end soon
POLITE = (signal.SIGINT, *ENDING)


def list_heard() -> tuple[signal.Signals, ...]:
    """List the polite signals but those that are ignored: whoever did that meant that they are not heard.

    nohup does it to SIGHUP, a shell's script to SIGINT of what it starts in the background, and a pool of processes to
    what its own process hears for them.
    """
    return tuple(each for each in POLITE if signal.getsignal(each) != signal.SIG_IGN)


@contextmanager
def catch_signals(
    hear: Callable[[signal.Signals], None], caught: Collection[signal.Signals] = POLITE
) -> Iterator[None]:
    """Call `hear` with each of the `caught` signals while the block runs; in the main thread, and nowhere else."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, _Handler(hear)) for each in list_heard() if each in caught}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)


class _Handler:
    def __init__(self, hear: Callable[[signal.Signals], None]) -> None:
        self._hear = hear

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._hear(signal.Signals(number))


def interrupt(number: signal.Signals) -> NoReturn:
    """Raise KeyboardInterrupt: what each polite signal does where nothing better is known."""
    raise KeyboardInterrupt(number.name)


class Stop:
    """A stop that polite signals ask for: `told` is the first of them, and work ends at its next safe place.

    Inside `at_once` a signal raises KeyboardInterrupt there and then, and so does a second Ctrl-C anywhere.
    """

    def __init__(self) -> None:
        self.told: signal.Signals | None = None
        self._at_once = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear the polite signals while the block runs."""
        with catch_signals(self._hear):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal break the block off; raises KeyboardInterrupt at once where one came before."""
        if self.told is not None:
            interrupt(self.told)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _hear(self, number: signal.Signals) -> None:
        again = self.told is not None and number == signal.SIGINT
        self.told = self.told or number
        if self._at_once or again:
            interrupt(number)
