import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence

import pytest

from harvest.teachers.endpoint.limiter import LEAST_OUTCOMES, LONG_WAIT_SECONDS, TOLERATED, Limiter, Slot
from harvest.teachers.endpoint.slots import Slots


class Simulation:
    """A limiter against a server, or several, on a clock of events: minutes pass in milliseconds, always the same way.

    `accepts` and `others` say what each server lets through.
    """

    def __init__(
        self,
        accepts: Callable[[float], bool],
        retry_after: float | None,
        latency: float = 0.05,
        others: Sequence[Callable[[float], bool]] = (),
    ) -> None:
        self.now = 0.0
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self._retry_after, self._latency = retry_after, latency
        servers = [accepts, *others]
        limiters = [Limiter(256, clock=lambda: self.now, seed=seed) for seed in range(1, 1 + len(servers))]
        self.limiter = limiters[0]
        self._accepts = dict(zip(limiters, servers, strict=True))
        self._slots = Slots(limiters, clock=lambda: self.now)

    def run(self, seconds: float) -> None:
        asyncio.run(self._run(seconds))

    async def _run(self, seconds: float) -> None:
        order = itertools.count()
        arrivals: list[tuple[float, int, Slot]] = []
        loop = asyncio.get_running_loop()
        timers: list[tuple[float, int, Callable[[], None]]] = []

        class Timer:
            def __init__(self) -> None:
                self.cancelled = False

            def cancel(self) -> None:
                self.cancelled = True

        def call_later(delay: float, callback: Callable[[], None]) -> Timer:
            timer = Timer()

            def ring() -> None:
                if not timer.cancelled:
                    callback()

            heapq.heappush(timers, (self.now + delay, next(order), ring))
            return timer

        loop.call_later = call_later  # type: ignore[method-assign, assignment]
        waiting = {asyncio.ensure_future(self._slots.acquire()) for _ in range(20)}
        while self.now < seconds:
            await asyncio.sleep(0)
            for future in [future for future in waiting if future.done()]:
                waiting.remove(future)
                heapq.heappush(arrivals, (self.now + self._latency, next(order), future.result()))
                waiting.add(asyncio.ensure_future(self._slots.acquire()))
            await asyncio.sleep(0)
            if any(future.done() for future in waiting):
                continue
            next_arrival = arrivals[0][0] if arrivals else seconds
            next_timer = timers[0][0] if timers else seconds
            self.now = max(min(next_arrival, next_timer), self.now)
            if next_timer <= next_arrival and timers:
                heapq.heappop(timers)[2]()
            elif arrivals:
                _, _, slot = heapq.heappop(arrivals)
                if self._accepts[slot.limiter](self.now):
                    self.accepted.append(self.now)
                    slot.limiter.count_reply()
                else:
                    self.refused.append(self.now)
                    slot.limiter.count_refusal(slot, self._retry_after)
                self._slots.release(slot)
        for future in waiting:
            future.cancel()

    def rate(self, start: float, end: float) -> float:
        return sum(start <= time < end for time in self.accepted) / (end - start)

    def refused_share(self, start: float, end: float) -> float:
        refused = sum(start <= time < end for time in self.refused)
        return refused / (refused + sum(start <= time < end for time in self.accepted))


def bucket(rate: float, burst: float) -> Callable[[float], bool]:
    level, at = burst, 0.0

    def accepts(now: float) -> bool:
        nonlocal level, at
        level, at = min(burst, level + (now - at) * rate), now
        if level < 1:
            return False
        level -= 1
        return True

    return accepts


def window(rate: int) -> Callable[[float], bool]:
    counts: dict[int, int] = {}

    def accepts(now: float) -> bool:
        counts[int(now)] = counts.get(int(now), 0) + 1
        return counts[int(now)] <= rate

    return accepts


@pytest.mark.parametrize("retry_after", [None, 0.0, 1.0])
@pytest.mark.parametrize("server", ["bucket", "small bucket", "tiny bucket", "by the second"])
def test_the_pace_of_a_limited_server_is_found(server: str, retry_after: float | None) -> None:
    accepts = {
        "bucket": bucket(200, 200),
        "small bucket": bucket(200, 10),
        "tiny bucket": bucket(200, 3),  # its first 429 comes before anything can be measured
        "by the second": window(200),
    }[server]
    simulation = Simulation(accepts, retry_after)
    simulation.run(40)
    # A server that counts by the second and names a second to wait gives the slowest start.
    after = 15 if (server, retry_after) == ("by the second", 1.0) else 10
    assert 180 <= simulation.rate(after, 40) <= 220
    assert simulation.refused_share(after, 40) < 0.02
    assert simulation.refused_share(0, 40) < 0.03


def test_the_pace_is_found_although_the_first_requests_came_in_bursts() -> None:
    for burst in (10, 40):  # far fewer than are in flight at 200 a second
        simulation = Simulation(bucket(200, burst), None, latency=1.0)
        simulation.run(40)
        assert 180 <= simulation.rate(20, 40) <= 220
        assert simulation.refused_share(0, 40) < 0.03


def test_a_limit_that_is_lifted_is_found() -> None:
    slow, fast = bucket(100, 20), bucket(400, 20)
    simulation = Simulation(lambda now: slow(now) if now < 20 else fast(now), None)
    simulation.run(90)
    assert simulation.rate(10, 20) < 110
    assert simulation.rate(80, 90) > 300


def test_servers_with_a_limit_each_let_as_much_through_together() -> None:
    accepted = []
    for count in (1, 2, 8):
        simulation = Simulation(bucket(50, 20), None, others=[bucket(50, 20) for _ in range(count - 1)])
        simulation.run(25)
        accepted.append(len(simulation.accepted))
        assert simulation.refused_share(5, 25) < 0.05
    alone, both, all_eight = accepted
    assert 1.9 * alone < both < 2.1 * alone
    assert 7.5 * alone < all_eight < 8.5 * alone


def test_a_server_of_twice_the_rate_gets_twice_as_much() -> None:
    simulation = Simulation(bucket(50, 20), None, others=[bucket(100, 20)])
    simulation.run(40)
    assert 135 <= simulation.rate(20, 40) <= 165


def test_a_server_without_limit_is_driven_at_the_ceiling() -> None:
    simulation = Simulation(lambda now: True, None)
    simulation.run(5)
    assert simulation.rate(3, 5) == pytest.approx(256 / 0.05, rel=0.02)


def test_rare_refusals_do_not_slow_down() -> None:
    numbers = itertools.count(1)
    simulation = Simulation(lambda now: next(numbers) % 100 != 0, None)
    simulation.run(5)
    assert simulation.limiter.rate() == float("inf")
    assert simulation.rate(3, 5) > 0.9 * 256 / 0.05


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refuse_often(limiter: Limiter, slot: Slot, retry_after: float | None) -> None:
    for _ in range(int(TOLERATED * LEAST_OUTCOMES) + 1):
        limiter.count_refusal(slot, retry_after)


def test_one_cut_a_burst() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = Limiter(8, clock=clock, seed=0)
        slots = [limiter.start(clock.now) for _ in range(8)]
        clock.now += 1
        for _ in slots[:4]:
            limiter.count_reply()
            limiter.end()
        limiter.count_refusal(slots[4], 1.0)
        rate = limiter.rate()
        assert rate < 4
        for slot in slots[5:]:
            limiter.count_refusal(slot, 1.0)
        assert limiter.rate() == rate

    asyncio.run(run())


def test_a_cooldown_is_shared_and_never_shorter_than_asked() -> None:
    for seed in range(50):
        clock = Clock()
        limiter = Limiter(8, clock=clock, seed=seed)
        limiter.count_refusal(Slot(limiter, clock.now, 0.0), 3.0)
        assert 3.0 <= limiter.cooldown() <= 3.3


def test_jitter_differs_between_clients() -> None:
    clock = Clock()
    cooldowns = set()
    for seed in range(20):
        limiter = Limiter(8, clock=clock, seed=seed)
        limiter.count_refusal(Slot(limiter, clock.now, 0.0), 3.0)
        cooldowns.add(limiter.cooldown())
    assert len(cooldowns) == 20


def test_cooldowns_without_advice_double_until_a_reply_comes() -> None:
    clock = Clock()
    limiter = Limiter(8, clock=clock, seed=0)
    lengths = []
    for _ in range(5):
        refuse_often(limiter, Slot(limiter, clock.now, 0.0), None)
        lengths.append(limiter.cooldown())
        clock.now += lengths[-1] + 1
    assert all(1.5 < later / sooner < 2.5 for sooner, later in itertools.pairwise(lengths))
    limiter.count_reply()
    refuse_often(limiter, Slot(limiter, clock.now, 0.0), None)
    assert limiter.cooldown() < lengths[1]


def test_a_tolerated_refusal_makes_only_its_own_request_wait() -> None:
    clock = Clock()
    limiter = Limiter(8, clock=clock, seed=0)
    assert limiter.count_refusal(Slot(limiter, clock.now, 0.0), LONG_WAIT_SECONDS / 2) >= LONG_WAIT_SECONDS / 2
    assert limiter.cooldown() == 0


def test_waited_counts_from_the_first_refusal_to_the_next_reply() -> None:
    clock = Clock()
    limiter = Limiter(8, clock=clock)
    limiter.count_refusal(Slot(limiter, clock.now, 0.0), None)
    clock.now += 7
    limiter.count_refusal(Slot(limiter, clock.now, 0.0), None)
    assert limiter.waited() == 7
    limiter.count_reply()
    assert limiter.waited() == 0


def test_rpm_and_tpm_are_ceilings() -> None:
    def count(seconds: float, **limits: float) -> int:
        clock = Clock()
        limiter = Limiter(1000, clock=clock, **limits)  # type: ignore[arg-type]
        started, sent = clock.now, 0
        while True:
            delay = limiter.find_delay(clock.now)
            clock.now += max(delay, 0)
            if clock.now >= started + seconds:
                return sent
            limiter.charge(limiter.start(clock.now), 50)
            limiter.end()
            sent += 1

    assert count(60, rpm=120) == pytest.approx(120, abs=2)
    assert count(60, tpm=3000) == pytest.approx(60, abs=2)
    assert count(60, rpm=30, tpm=3000) == pytest.approx(30, abs=2)
