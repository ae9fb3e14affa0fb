"""The cap on the cost against endpoints that count more tokens than a request can have, or bill what cannot be."""

import asyncio
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from harvest.chat.pricing import Price, Usage
from harvest.teachers.endpoint.bill import Bill
from harvest.teachers.endpoint.budget import Budget
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs
from tests.harvest.teachers.endpoint.endpoint_runs import make_examples, make_teacher, run_all

PRICE = Price(10e-6, 100e-6, 1e-6, "a test")
PROMPT, ANSWER = 200, 16  # bounds of the tokens of one request
HOSTILE_COSTS = (None, 0.0, -1.0, math.nan, math.inf, 1e30, 1e-30, 0.01)


def draw_usage(source: random.Random, steady_factor: float | None) -> Usage | None:
    """Mostly what a request can have; now and then none, and now and then far more of either.

    With `steady_factor` always what it can have, billed so many times its price.
    """
    if steady_factor is not None:
        usage = Usage(source.randint(1, PROMPT), source.randint(0, ANSWER), source.choice((0, 50)))
        return replace(usage, cost_usd=steady_factor * PRICE.cost(usage))
    if source.random() < 0.1:
        return None
    prompt, answer = source.randint(1, PROMPT), source.randint(0, ANSWER)
    if source.random() < 0.1:
        prompt *= source.choice((2, 10))
    if source.random() < 0.1:
        answer *= source.choice((2, 10, 100))
    cost = source.choice(HOSTILE_COSTS)
    return Usage(prompt, answer, source.choice((0, 50, 10**9)), math.nan if cost is not None and cost < 0 else cost)


class HostileRun:
    """Requests side by side against one cap. `learnt` has what was in flight at each moment that raised the bound.

    What is in flight without usage, None there, costs the bound.
    """

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.steady_factor = self.source.choice((None, None, None, 2.0, 9.0))
        self.told: list[str] = []
        self.budget = Budget(max_cost=self.source.uniform(0.05, 0.5))
        self.bill = Bill(PRICE, self.told.append)
        self.in_flight: dict[int, float | None] = {}
        self.learnt: list[list[float | None]] = []

    async def ask(self) -> None:
        ticket = await self.budget.reserve(partial(self.bill.bound, PROMPT, ANSWER))
        if ticket is None:
            return
        usage = draw_usage(self.source, self.steady_factor)
        cost = None if usage is None else PRICE.cost(usage)
        if cost is not None and usage is not None and usage.cost_usd is not None and usage.cost_usd <= 10 * cost:
            cost = max(cost, usage.cost_usd)
        self.in_flight[ticket] = cost
        for _ in range(self.source.randint(0, 5)):
            await asyncio.sleep(0)
        bound = self.bill.bound(PROMPT, ANSWER)
        said = self.bill.settle(self.budget, ticket, usage, PROMPT, ANSWER)
        assert said is not None
        assert 0 <= said <= (bound if cost is None else cost) + 1e-9
        if self.bill.bound(PROMPT, ANSWER) > bound:
            self.learnt.append(list(self.in_flight.values()))
        del self.in_flight[ticket]

    def find_most(self) -> float:
        """The most that was in flight, in US dollars, at a moment that raised the bound."""
        bound = self.bill.bound(PROMPT, ANSWER)
        return max((sum(bound if each is None else each for each in costs) for costs in self.learnt), default=0.0)

    async def ask_many(self) -> None:
        width = asyncio.Semaphore(self.source.choice((1, 8, 64)))
        async with asyncio.TaskGroup() as group:
            for _ in range(400):
                await width.acquire()
                group.create_task(self.ask()).add_done_callback(lambda _: width.release())


@pytest.mark.parametrize("seed", range(200))
def test_the_cap_is_passed_by_no_more_than_was_in_flight_when_it_was_learnt(seed: int) -> None:
    run = HostileRun(seed)
    asyncio.run(run.ask_many())
    budget = run.budget
    assert budget.max_cost is not None
    assert budget.spent_usd <= budget.max_cost + run.find_most() + 1e-9
    assert budget.stopped is not None, "nothing that an endpoint says disables the cap"
    past = budget.spent_usd > budget.max_cost
    assert budget.stopped.startswith("stopped past" if past else "stopped before")
    assert len(run.told) <= 1


@pytest.mark.parametrize("cost", [0.0, math.nan, 1e30, -math.inf])
def test_a_bill_that_cannot_be_is_said_once_and_the_price_counts(cost: float) -> None:
    async def run() -> None:
        told: list[str] = []
        budget, bill = Budget(max_cost=1.0), Bill(PRICE, told.append)
        for _ in range(3):
            ticket = await budget.reserve(partial(bill.bound, PROMPT, ANSWER))
            assert ticket is not None
            assert bill.settle(budget, ticket, Usage(100, 10, cost_usd=cost), PROMPT, ANSWER) == pytest.approx(0.002)
        assert budget.spent_usd == pytest.approx(0.006)
        (message,) = told
        assert "its tokens cost $0.002 by a test" in message

    asyncio.run(run())


def test_what_an_answer_was_seen_to_take_bounds_the_next_one() -> None:
    async def run() -> None:
        budget, bill = Budget(max_cost=0.05), Bill(PRICE, print)
        ticket = await budget.reserve(partial(bill.bound, PROMPT, ANSWER))
        assert ticket is not None
        bill.settle(budget, ticket, Usage(PROMPT, 20 * ANSWER), PROMPT, ANSWER)
        assert bill.bound(PROMPT, ANSWER) == pytest.approx(0.002 + 20 * 0.0016)
        assert await budget.reserve(partial(bill.bound, PROMPT, ANSWER)) is None
        assert budget.stopped == (
            "stopped before --max-cost 0.05: $0.0340 was spent, and the next request could cost $0.0340"
        )

    asyncio.run(run())


def test_what_a_bill_was_seen_to_be_bounds_the_next_one() -> None:
    async def run() -> None:
        budget, bill = Budget(max_cost=0.04), Bill(PRICE, print)
        ticket = await budget.reserve(partial(bill.bound, PROMPT, ANSWER))
        assert ticket is not None
        usage = Usage(PROMPT, ANSWER, cached_tokens=PROMPT)  # billed like any other: no excess
        said = bill.settle(budget, ticket, replace(usage, cost_usd=0.0036), PROMPT, ANSWER)
        assert said == 0.0036
        assert bill.bound(PROMPT, ANSWER) == pytest.approx(0.0036)
        ticket = await budget.reserve(partial(bill.bound, PROMPT, ANSWER))
        assert ticket is not None
        bill.settle(budget, ticket, Usage(100, 10, cost_usd=9 * 0.002), PROMPT, ANSWER)
        assert bill.bound(PROMPT, ANSWER) == pytest.approx(9 * 0.0036)
        assert await budget.reserve(partial(bill.bound, PROMPT, ANSWER)) is None
        assert (budget.stopped or "").startswith("stopped before --max-cost 0.04: $0.0216 was spent")

    asyncio.run(run())


def make_answer(source: random.Random, cost: object) -> Callable[[Asked], dict[str, Any]]:
    def answer(asked: Asked) -> dict[str, Any]:
        prompt, limit = len(json.dumps(asked.body["messages"])), asked.body["max_completion_tokens"]
        reply = make_reply("positive", spread_logprobs(0.5), source.randint(1, prompt), 3 * source.randint(1, limit))
        reply["usage"]["cost"] = cost
        return reply

    return answer


@pytest.mark.parametrize("cost", [0, -1, 1e30, math.nan, None])
def test_an_endpoint_that_ignores_the_limit_of_answers_ends_at_the_cap(cost: object) -> None:
    concurrency, cap = 8, 0.02
    answer = make_answer(random.Random(1), cost)
    with FaultServer(answer=answer, price_in=10e-6, price_out=100e-6) as server:
        options: dict[str, Any] = {"price_in": 10.0, "price_out": 100.0, "max_cost": cap, "concurrency": concurrency}
        teacher = make_teacher(server, **options)
        replies = run_all(teacher, make_examples(300))
        most = max(reply.answer.cost_usd or 0.0 for reply in replies)
        assert server.count.billed_usd <= cap + concurrency * most
        assert 0 < len(replies) < 300
        assert "--max-cost 0.02" in (teacher.stopped or "")
