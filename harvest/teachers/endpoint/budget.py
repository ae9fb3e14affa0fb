"""The caps of a run: dollars and requests, counted before they are spent."""

import asyncio
import math

_PER_DOLLAR = 10**12  # money is summed in whole picodollars: a sum of floats would drift across the cap


class Budget:
    """Lets a request be sent only where its worst case still fits under the caps, with all that is in flight.

    Every attempt counts, retries too. An attempt whose end is unknown (a connection that broke after the request was
    sent, say) may be billed, so it keeps its worst case as `maybe_billed_usd`.
    """

    def __init__(self, max_cost: float | None = None, max_requests: int | None = None) -> None:
        self.max_cost = max_cost
        self.max_requests = max_requests
        self.requests = 0
        self.stopped: str | None = None
        self._cap = None if max_cost is None else int(max_cost * _PER_DOLLAR)
        self._spent = self._maybe_billed = self._reserved = 0
        self._open: dict[int, int] = {}
        self._settled = asyncio.Event()

    @property
    def spent_usd(self) -> float:
        """What the replies so far have cost."""
        return self._spent / _PER_DOLLAR

    @property
    def maybe_billed_usd(self) -> float:
        """What attempts without a reply may cost beside that, at most."""
        return self._maybe_billed / _PER_DOLLAR

    async def reserve(self, worst_usd: float) -> int | None:
        """A ticket for one request that costs at most `worst_usd`; None where the budget ends here.

        Waits while requests in flight may turn out cheaper than their worst case and so make room.
        """
        worst = math.ceil(worst_usd * _PER_DOLLAR)
        while self.stopped is None:
            if self.max_requests is not None and self.requests >= self.max_requests:
                self.stopped = f"stopped at --max-requests {self.max_requests}: that many requests were sent"
            elif self._cap is None or self._spent + self._maybe_billed + self._reserved + worst <= self._cap:
                self.requests += 1
                self._open[self.requests] = worst
                self._reserved += worst
                return self.requests
            elif not self._reserved:
                maybe = (
                    f", ${self.maybe_billed_usd:.4f} may be billed for broken requests" if self._maybe_billed else ""
                )
                self.stopped = (
                    f"stopped before --max-cost {self.max_cost:g}: ${self.spent_usd:.4f} was spent{maybe}, "
                    f"and the next request could cost ${worst_usd:.4f}"
                )
            else:
                await self._settled.wait()
        return None

    def settle(self, ticket: int, cost_usd: float, *, maybe: bool = False) -> None:
        """Replace a ticket's worst case by its cost; `maybe` where it is not known whether that will be billed."""
        self._reserved -= self._open.pop(ticket)
        cost = math.ceil(cost_usd * _PER_DOLLAR)
        if maybe:
            self._maybe_billed += cost
        else:
            self._spent += cost
        self._settled.set()
        self._settled = asyncio.Event()  # a new one each time: an Event belongs to the loop that waited for it
