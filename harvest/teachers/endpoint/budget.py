"""The caps of a run: dollars and requests, counted before they are spent."""

import asyncio
import math
from collections.abc import Callable
from typing import TypeAlias

Worst: TypeAlias = Callable[[], float]  # the most that a request can cost in US dollars, as far as is known now

_PER_DOLLAR = 10**12  # money is summed in whole picodollars: a sum of floats would drift across the cap


class Budget:
    """Lets a request be sent only where its worst case still fits under the caps, with all that is in flight.

    Every attempt counts, retries too, unless it was never sent. An attempt whose end is unknown (a connection that
    broke after the request was sent, say) may be billed, so it keeps its worst case as `maybe_billed_usd`.
    """

    def __init__(self, max_cost: float | None = None, max_requests: int | None = None) -> None:
        self.max_cost = max_cost
        self.max_requests = max_requests
        self.requests = 0
        self.stopped: str | None = None
        self._cap = None if max_cost is None else int(max_cost * _PER_DOLLAR)
        self._spent = self._maybe_billed = self._reserved = 0
        self._open: dict[int, tuple[Worst, int]] = {}
        self._last_ticket = 0
        self._settled: asyncio.Event | None = None  # what is waited for; it belongs to the loop of those who wait

    @property
    def spent_usd(self) -> float:
        """What the replies so far have cost."""
        return self._spent / _PER_DOLLAR

    @property
    def maybe_billed_usd(self) -> float:
        """What attempts without a reply may cost beside that, at most."""
        return self._maybe_billed / _PER_DOLLAR

    async def reserve(self, worst: Worst) -> int | None:
        """A ticket for one request that costs at most `worst`; None where the budget ends here.

        Waits while requests in flight may turn out cheaper than their worst case and so make room.
        """
        while self.stopped is None:
            amount = _count(worst())
            if self.max_requests is not None and self.requests >= self.max_requests:
                self.stopped = f"stopped at --max-requests {self.max_requests}: each attempt counts"
            elif self._cap is None or self._spent + self._maybe_billed + self._reserved + amount <= self._cap:
                self.requests += 1
                self._last_ticket += 1
                self._open[self._last_ticket] = (worst, amount)
                self._reserved += amount
                return self._last_ticket
            elif not self._reserved:
                self.stopped = self._explain_stop(self._cap, amount)
            else:
                self._settled = self._settled or asyncio.Event()
                await self._settled.wait()
        return None

    def fits(self, worst: Worst, requests: int = 1) -> bool:
        """Whether `reserve` would give tickets for so many requests, which cost `worst` together, without waiting."""
        if self.stopped is not None or (self.max_requests is not None and self.requests + requests > self.max_requests):
            return False
        return self._cap is None or self._spent + self._maybe_billed + self._reserved + _count(worst()) <= self._cap

    def stop(self, worst: Worst) -> None:
        """End here: there is no room for what costs at most `worst`, and nothing will make any."""
        if self._cap is not None and self._spent + self._maybe_billed + self._reserved + _count(worst()) > self._cap:
            self.stopped = self._explain_stop(self._cap, _count(worst()))
        else:
            self.stopped = f"stopped at --max-requests {self.max_requests}: each attempt counts"

    def hold(self, worst: Worst) -> int:
        """A ticket for a request that an earlier run has sent. It counts under the caps, and no cap can forbid it."""
        self._last_ticket += 1
        amount = _count(worst())
        self._open[self._last_ticket] = (worst, amount)
        self._reserved += amount
        return self._last_ticket

    def _explain_stop(self, cap: int, next_amount: int) -> str:
        spent = f"{_show_dollars(self.spent_usd)} was spent"
        if self._maybe_billed:
            spent += f", ${self.maybe_billed_usd:.4f} may be billed for broken requests"
        if self._spent + self._maybe_billed > cap:
            return (
                f"stopped past --max-cost {self.max_cost:g}: {spent}, for the endpoint counted more tokens than a "
                "request can have, or billed more for them than their price; what was in flight when it first did is "
                "what the cap was passed by"
            )
        return (
            f"stopped before --max-cost {self.max_cost:g}: {spent}, and the next request could cost "
            f"{_show_dollars(next_amount / _PER_DOLLAR)}"
        )

    def learn(self) -> None:
        """Reckon the worst cases of all that is in flight anew: more is known of them now."""
        self._open = {ticket: (worst, _count(worst())) for ticket, (worst, _) in self._open.items()}
        self._reserved = sum(amount for _, amount in self._open.values())

    def find_worst(self, ticket: int) -> float:
        """The most that an open ticket's request can cost, in US dollars."""
        return self._open[ticket][1] / _PER_DOLLAR

    def give_back(self, ticket: int) -> None:
        """Take a ticket back that no request was sent with: it costs nothing, and does not count."""
        self.requests -= 1
        self.settle(ticket, 0.0)

    def settle(self, ticket: int, cost_usd: float | None, *, maybe: bool = False) -> None:
        """Replace a ticket's worst case by its cost, None where that is the worst case itself.

        `maybe` is for a cost that may not be billed.
        """
        _, amount = self._open.pop(ticket)
        self._reserved -= amount
        cost = amount if cost_usd is None else _count(cost_usd)
        if maybe:
            self._maybe_billed += cost
        else:
            self._spent += cost
        if self._settled is not None:
            self._settled.set()
            self._settled = None


def _count(usd: float) -> int:
    return math.ceil(usd * _PER_DOLLAR)


def _show_dollars(amount: float) -> str:
    """Four decimals, or two figures of less than that shows."""
    return f"${amount:.4f}" if amount >= 0.01 or not amount else f"${amount:.2g}"
