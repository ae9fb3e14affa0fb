"""Finds the pace an endpoint allows: a window that opens quickly, and a rate that answers 429 sets.

Until the first 429 only the number of requests in flight is bounded; it grows by a quarter every round trip. The first
429 of a burst sets a rate: the rate of replies measured just before, cut once, however many 429s the burst has. A rare
429 (one in fifty, with nothing to wait for) is no reason to slow down: some servers give them at any rate, and a limit
is used fully where it is just touched. From the cut the rate grows by the cubic curve of RFC 9438: quickly back to just
under what was too much, flat around it, then faster and faster, so that a limit that was lifted is found. The first 429
tells little, for what was sent before it came in bursts, which overflow a bucket far below its rate: from its cut the
rate doubles and doubles until the next one. A cooldown is shared: while it lasts nobody sends.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

FIRST_WINDOW = 32  # requests in flight at the start
GROWTH = 0.25  # of the window, for each reply: faster, and a strict endpoint gets hundreds of requests too many
CUT = 0.9  # of the measured rate, once a burst
PLATEAU = 0.97  # of the rate that was too much: where the curve is flat
PLATEAU_SECONDS = 15.0  # from the cut to the middle of the flat part
DOUBLING_SECONDS = 3.0  # of a rate that was only guessed
MOST_DOUBLINGS = 50.0
MEASURE_SECONDS = 2.0  # over which the rate of replies is measured
MEASURE_LEAST_SECONDS = 1.0
SHORTEST_SPAN_SECONDS = 0.05
SLOWEST_RATE = 0.1
CATCH_UP_SECONDS = 0.01  # a timer that fires late lets this much through at once
TOLERATED = 0.02  # share of 429s among the last OUTCOMES that does not count as too fast
OUTCOMES = 500
LEAST_OUTCOMES = 200
LONG_WAIT_SECONDS = 0.5  # a 429 that stops everybody for longer is never tolerated
FIRST_COOLDOWN_SECONDS = 0.1  # after a 429 without Retry-After; doubles while nothing but 429 comes
LONGEST_COOLDOWN_SECONDS = 60.0
NARROW_SECONDS = 0.2  # connections fail by the dozen: one step for all of them
JITTER = 0.1  # share of a cooldown that is added at random: always later than asked, never sooner


class Slot(NamedTuple):
    """The right to have one request in flight under `limiter`, since `started`; the next starts `interval` s later."""

    limiter: "Limiter"
    started: float
    interval: float


class Limiter:
    """Bounds the requests in flight and their rate; Slots waits for it. Not thread-safe.

    `ceiling` requests in flight, `rpm` requests and `tpm` tokens a minute are never passed.
    """

    def __init__(
        self,
        ceiling: int,
        rpm: float | None = None,
        tpm: float | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        seed: int | None = None,
    ) -> None:
        self._ceiling = ceiling
        self._window = float(min(FIRST_WINDOW, ceiling))
        self._most_per_second = rpm / 60 if rpm else math.inf
        self._seconds_per_token = 60 / tpm if tpm else 0.0
        self._clock = clock
        self._random = random.Random(seed)
        self._next_start = -math.inf  # no request starts before this time
        self._cooldown_until = -math.inf
        self._plateau: float | None = None  # None: no 429 came yet
        self._guessed = False  # the rate in force is that of the first cut
        self._cut_rate = math.inf
        self._cut_at = -math.inf
        self._epoch = clock()  # since when replies have been measured without a break
        self._replies: deque[float] = deque()
        self._outcomes: deque[bool] = deque(maxlen=OUTCOMES)  # True: 429
        self._cooldowns_in_a_row = 0
        self.in_flight = self.started = 0
        self._narrowed_at = -math.inf
        self._refused_since: float | None = None  # since when nothing but 429 has come

    @property
    def window(self) -> int:
        """How many requests may be in flight now."""
        return int(self._window)

    def rate(self, now: float | None = None) -> float:
        """Requests a second allowed now; infinite where nothing limits them."""
        if self._plateau is None:
            return self._most_per_second
        now = self._clock() if now is None else now
        if self._guessed:
            doublings = max(now - max(self._cut_at, self._epoch), 0.0) / DOUBLING_SECONDS
            return min(self._cut_rate * 2 ** min(doublings, MOST_DOUBLINGS), self._most_per_second)
        elapsed = max(now - self._cut_at, 0.0) / PLATEAU_SECONDS
        depth = self._plateau - self._cut_rate
        return min(self._plateau + depth * (elapsed - 1) ** 3, self._most_per_second)

    def cooldown(self) -> float:
        """Seconds until anybody may send again; 0 where there is no cooldown."""
        return max(self._cooldown_until - self._clock(), 0.0)

    def waited(self) -> float:
        """Seconds for which nothing but refusals has come."""
        return 0.0 if self._refused_since is None else self._clock() - self._refused_since

    def measure_rate(self) -> float:
        """Replies a second over the last MEASURE_SECONDS."""
        since = self._clock() - MEASURE_SECONDS
        return sum(1 for time in self._replies if time >= since) / MEASURE_SECONDS

    def find_delay(self, now: float) -> float:
        """Seconds until the next request may start; infinite while all slots are taken."""
        if self.in_flight >= int(self._window):
            return math.inf
        return max(self._next_start, self._cooldown_until) - now

    def start(self, now: float) -> Slot:
        """A slot for a request that starts now, which find_delay allows."""
        interval = 1 / self.rate(now)
        self._next_start = max(self._next_start, now - CATCH_UP_SECONDS) + interval
        self.in_flight += 1
        self.started += 1
        return Slot(self, now, interval)

    def start_idle(self) -> Slot:
        """A slot that nothing is sent with: it is waited for by nobody, and nobody waits for it."""
        self.in_flight += 1
        return Slot(self, self._clock(), 0.0)

    def charge(self, slot: Slot, tokens: int) -> None:
        """Note that the request of `slot` has about `tokens` tokens."""
        self._next_start += max(tokens * self._seconds_per_token - slot.interval, 0.0)

    def end(self) -> None:
        """Note that a slot was given back."""
        self.in_flight -= 1

    def count_reply(self) -> None:
        """Note that a request was accepted."""
        now = self._clock()
        self._refused_since = None
        self._cooldowns_in_a_row = 0
        self._replies.append(now)
        self._outcomes.append(False)
        while self._replies[0] < now - MEASURE_SECONDS:
            self._replies.popleft()
        if self._window < self._ceiling:
            self._window = min(self._window + GROWTH, self._ceiling)

    def count_refusal(self, slot: Slot, retry_after: float | None) -> float:
        """Note a 429 of the request that had `slot`; `retry_after` is in seconds, None where the reply named none.

        Returns the seconds which that request alone should wait, beside the cooldown of all.
        """
        now = self._clock()
        if self._refused_since is None:
            self._refused_since = now
        self._outcomes.append(True)
        refused = sum(self._outcomes)
        rare = refused <= TOLERATED * max(len(self._outcomes), LEAST_OUTCOMES)
        if rare and (retry_after or 0.0) < LONG_WAIT_SECONDS:
            return (retry_after or 0.0) + self._random.uniform(0, FIRST_COOLDOWN_SECONDS)
        first_of_burst = slot.started > self._cut_at
        if first_of_burst:
            self._cut(now)
        if retry_after is None or retry_after < FIRST_COOLDOWN_SECONDS:  # "0" is no advice
            if not first_of_burst:
                return 0.0
            retry_after = min(FIRST_COOLDOWN_SECONDS * 2**self._cooldowns_in_a_row, LONGEST_COOLDOWN_SECONDS)
            self._cooldowns_in_a_row += 1
        until = now + retry_after * (1 + self._random.uniform(0, JITTER))
        if until > self._cooldown_until:
            self._cooldown_until = until
            self._epoch = max(self._epoch, until)
        return 0.0

    def narrow(self) -> None:
        """Have fewer requests in flight from now on, by a quarter: this process can hold no more connections."""
        now = self._clock()
        if now - self._narrowed_at >= NARROW_SECONDS:
            self._narrowed_at = now
            self._ceiling = max(min(self._ceiling, self.in_flight) * 3 // 4, 1)
            self._window = min(self._window, float(self._ceiling))

    def _cut(self, now: float) -> None:
        rate = self.rate(now)
        # A rate that doubles is measured over a short time, or it would be thought half of what it is.
        span = min(now - self._epoch, MEASURE_LEAST_SECONDS if self._guessed else MEASURE_SECONDS)
        recent = sum(1 for time in self._replies if time >= now - span)
        self._guessed = self._plateau is None
        if self._plateau is None or span >= MEASURE_LEAST_SECONDS:
            too_much = min(max(recent, 1) / max(span, SHORTEST_SPAN_SECONDS), rate)
            plateau, cut_rate = PLATEAU * too_much, CUT * too_much
        else:
            # Too soon after the last burst to measure. Servers that count by the second let these replies through in a
            # part of one, so they count as a whole one's, believed between half and nine tenths of the rate in force;
            # the truth is looked for between that and the rate.
            cut_rate = min(max(recent / MEASURE_LEAST_SECONDS, 0.5 * rate), 0.9 * rate)
            plateau = (cut_rate + rate) / 2
        # One request in ten seconds is slow enough for anybody, and keeps a way back up.
        self._plateau, self._cut_rate = max(plateau, 1.1 * SLOWEST_RATE), max(cut_rate, SLOWEST_RATE)
        self._cut_at = now
        self._outcomes.clear()
