import asyncio
import random
from functools import partial

import pytest

from harvest.teachers.endpoint.budget import Budget


def test_without_caps_everything_is_let_through() -> None:
    async def run() -> None:
        budget = Budget()
        ticket = await budget.reserve(partial(float, 1e9))
        assert ticket is not None
        budget.settle(ticket, 5.0)
        assert budget.spent_usd == 5.0
        assert budget.stopped is None

    asyncio.run(run())


def test_the_worst_case_must_fit() -> None:
    async def run() -> None:
        budget = Budget(max_cost=1.0)
        first = await budget.reserve(partial(float, 0.6))
        assert first is not None
        waiting = asyncio.create_task(budget.reserve(partial(float, 0.6)))
        await asyncio.sleep(0)
        assert not waiting.done()  # the first may turn out cheap
        budget.settle(first, 0.1)
        second = await waiting
        assert second is not None
        budget.settle(second, 0.6)
        assert await budget.reserve(partial(float, 0.6)) is None
        assert budget.stopped is not None
        assert "--max-cost 1" in budget.stopped
        assert budget.spent_usd == pytest.approx(0.7)

    asyncio.run(run())


def test_what_may_be_billed_counts_against_the_cap() -> None:
    async def run() -> None:
        budget = Budget(max_cost=1.0)
        ticket = await budget.reserve(partial(float, 0.9))
        assert ticket is not None
        budget.settle(ticket, 0.9, maybe=True)
        assert await budget.reserve(partial(float, 0.2)) is None
        assert budget.spent_usd == 0
        assert "$0.9000 may be billed" in (budget.stopped or "")

    asyncio.run(run())


def test_requests_are_counted_before_they_are_sent() -> None:
    async def run() -> None:
        budget = Budget(max_requests=3)
        tickets = [await budget.reserve(partial(float, 0.0)) for _ in range(5)]
        assert tickets == [1, 2, 3, None, None]
        assert "--max-requests 3" in (budget.stopped or "")

    asyncio.run(run())


def test_a_ticket_that_nothing_was_sent_with_does_not_count() -> None:
    async def run() -> None:
        budget = Budget(max_cost=1.0, max_requests=2)
        first, unsent = [await budget.reserve(partial(float, 0.5)) for _ in range(2)]
        assert first is not None
        assert unsent is not None
        budget.give_back(unsent)
        other = await budget.reserve(partial(float, 0.5))
        assert other not in (None, first), "the first is open still"
        assert (await budget.reserve(partial(float, 0.0)), budget.requests) == (None, 2)
        assert budget.stopped == "stopped at --max-requests 2: each attempt counts"

    asyncio.run(run())


def test_the_end_wakes_all_that_wait() -> None:
    async def run() -> None:
        budget = Budget(max_cost=1.0)
        ticket = await budget.reserve(partial(float, 1.0))
        assert ticket is not None
        waiting = [asyncio.create_task(budget.reserve(partial(float, 0.5))) for _ in range(4)]
        await asyncio.sleep(0)
        budget.settle(ticket, 1.0)
        assert await asyncio.gather(*waiting) == [None] * 4

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(200))
def test_the_cap_is_never_passed(seed: int) -> None:
    """Requests side by side, of random worst cases and real costs, some of them lost."""
    source = random.Random(seed)
    cap = source.uniform(0.5, 2.0)
    budget = Budget(max_cost=cap)

    async def ask() -> None:
        worst = source.uniform(0.0, 0.1)
        ticket = await budget.reserve(partial(float, worst))
        if ticket is not None:
            await asyncio.sleep(0)
            budget.settle(ticket, source.uniform(0.0, worst), maybe=source.random() < 0.1)

    async def run() -> None:
        await asyncio.gather(*(ask() for _ in range(100)))

    asyncio.run(run())
    assert budget.spent_usd + budget.maybe_billed_usd <= cap


def test_a_budget_outlives_an_event_loop() -> None:
    budget = Budget(max_cost=1.0)

    async def run() -> None:
        ticket = await budget.reserve(partial(float, 0.4))
        waiting = asyncio.create_task(budget.reserve(partial(float, 0.7)))
        await asyncio.sleep(0)
        assert ticket is not None
        budget.settle(ticket, 0.0)
        other = await waiting
        assert other is not None
        budget.settle(other, 0.0)

    asyncio.run(run())
    asyncio.run(run())
