"""Who may send next: slots of one limiter, or of several, each that of a server, are waited for in one line."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeAlias

from harvest.teachers.endpoint.limiter import Limiter, Slot

_Line: TypeAlias = "deque[asyncio.Future[Slot]]"


class Slots:
    """Gives out the slots of `limiters`, first come, first served: of those that have one, that with fewest in flight.

    Among equals it is that which has been given fewest. A limiter that is closed gives none while another is open; one
    that was left gives none. One event loop; not thread-safe.
    """

    def __init__(self, limiters: Sequence[Limiter], *, clock: Callable[[], float] = monotonic) -> None:
        self._limiters = self._open = list(limiters)
        self._closed: set[Limiter] = set()
        self._clock = clock
        self._line: _Line = deque()
        self._own_lines: dict[Limiter, _Line] = {limiter: deque() for limiter in limiters}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limiters(self) -> Sequence[Limiter]:
        """Those that were not left."""
        return self._limiters

    @property
    def open(self) -> Sequence[Limiter]:
        """Those that give slots: all that were not left, where all are closed."""
        return self._open

    def close(self, limiter: Limiter) -> None:
        """Give no slot of this limiter while another is open; who waits for it waits for any."""
        self._closed.add(limiter)
        self._choose_open()

    def reopen(self, limiter: Limiter) -> None:
        """Give slots of a limiter that was closed."""
        self._closed.discard(limiter)
        self._choose_open()

    def leave(self, limiter: Limiter) -> None:
        """Give no slot of this limiter again. It is not the last one."""
        self._limiters = [one for one in self._limiters if one is not limiter]
        self._choose_open()

    def _choose_open(self) -> None:
        self._open = [one for one in self._limiters if one not in self._closed] or self._limiters
        for limiter, line in self._own_lines.items():
            if limiter not in self._open:
                self._line.extendleft(reversed(line))
                line.clear()
        self._wake()

    async def acquire(self, limiter: Limiter | None = None) -> Slot:
        """Wait for the right to send one request: of `limiter`, where one is named and open."""
        now = self._clock()
        if limiter is None or len(self._limiters) == 1 or limiter not in self._open:
            if not self._line and (chosen := self._choose(now)) is not None:
                return chosen.start(now)
            line = self._line
        else:
            line = self._own_lines[limiter]
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        line.append(future)
        self._wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def release(self, slot: Slot) -> None:
        """Take a slot back."""
        slot.limiter.end()
        self._wake()

    def let_go(self) -> None:
        """Give all that wait a slot at once, as take_idle does."""
        for line in (self._line, *self._own_lines.values()):
            while line:
                waiting = line.popleft()
                if not waiting.done():
                    waiting.set_result(self.take_idle())

    def take_idle(self) -> Slot:
        """A slot that nothing is sent with."""
        return self._open[0].start_idle()

    def _choose(self, now: float) -> Limiter | None:
        """The limiter that has a slot now, and fewest in flight; None where none has one."""
        chosen = None
        for one in self._open:
            if one.find_delay(now) > 0:
                continue
            if chosen is None or (one.in_flight, one.started) < (chosen.in_flight, chosen.started):
                chosen = one
        return chosen

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        delay = math.inf  # until the next can be woken
        for limiter, line in self._own_lines.items():
            while _drop_cancelled(line):
                if (own := limiter.find_delay(now)) > 0:
                    delay = min(delay, own)
                    break
                line.popleft().set_result(limiter.start(now))
        while _drop_cancelled(self._line):
            if (chosen := self._choose(now)) is None:
                delay = min(delay, *(one.find_delay(now) for one in self._open))
                break
            self._line.popleft().set_result(chosen.start(now))
        if delay < math.inf:
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)


def _drop_cancelled(line: _Line) -> _Line:
    """The line without those at its head that wait no more."""
    while line and line[0].done():
        line.popleft()
    return line
