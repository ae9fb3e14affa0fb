import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine

import pytest

from harvest.teachers.endpoint.limiter import Limiter, Slot
from harvest.teachers.endpoint.slots import Slots


def test_slots_are_given_in_order_and_a_cancelled_waiter_takes_none() -> None:
    async def run() -> list[int]:
        limiter = Limiter(1)
        slots = Slots([limiter])
        got: list[int] = []

        async def wait(number: int) -> None:
            slot = await slots.acquire()
            got.append(number)
            await asyncio.sleep(0)
            slots.release(slot)

        first = await slots.acquire()
        assert first.interval == 0
        tasks = [asyncio.create_task(wait(number)) for number in range(5)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[2].cancel()
        slots.release(first)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == 0
        return got

    assert asyncio.run(run()) == [0, 3, 4]


async def take(slots: Slots, count: int) -> list[Slot]:
    """So many slots, none of which is waited for."""
    return [await asyncio.wait_for(slots.acquire(), 1) for _ in range(count)]


async def the_next_goes_where_fewest_are_in_flight() -> None:
    one, two = Limiter(8), Limiter(4)
    slots = Slots([one, two])
    taken = await take(slots, 12)
    assert Counter(slot.limiter for slot in taken) == {one: 8, two: 4}, "each has its own ceiling"
    assert Counter(slot.limiter for slot in taken[:8]) == {one: 4, two: 4}
    for slot in [slot for slot in taken if slot.limiter is one][:3]:
        slots.release(slot)
    assert [slot.limiter for slot in await take(slots, 3)] == [one] * 3


async def one_after_the_other_is_shared_out_evenly() -> None:
    limiters = [Limiter(4), Limiter(4), Limiter(4)]
    slots = Slots(limiters)
    for _ in range(30):
        slots.release((await take(slots, 1))[0])
    assert [limiter.started for limiter in limiters] == [10, 10, 10]


async def a_wait_at_one_holds_nobody_up_at_the_other() -> None:
    slow, other = Limiter(4), Limiter(1)
    slots = Slots([slow, other])
    slow.count_refusal(Slot(slow, 0.0, 0.0), 60.0)
    assert slow.cooldown() > 0
    (first,) = await take(slots, 1)
    assert first.limiter is other
    waiting = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.release(first)
    assert (await asyncio.wait_for(waiting, 1)).limiter is other


async def a_closed_one_gives_none_while_another_is_open() -> None:
    one, two = Limiter(1), Limiter(1)
    slots = Slots([one, two])
    slots.close(one)
    (taken,) = await take(slots, 1)
    assert taken.limiter is two
    slots.release(taken)
    slots.close(two)
    assert {slot.limiter for slot in await take(slots, 2)} == {one, two}, "where all are closed all are asked"


async def who_waits_for_one_gets_that_one_until_it_is_closed() -> None:
    one, two = Limiter(1), Limiter(2)
    slots = Slots([one, two])
    held = [await slots.acquire(one), await slots.acquire(two)]
    assert [slot.limiter for slot in held] == [one, two]
    patient = asyncio.create_task(slots.acquire(one))
    await asyncio.sleep(0)
    assert not patient.done(), "the other has room, and is not what is waited for"
    slots.release(held[0])
    held[0] = await asyncio.wait_for(patient, 1)
    assert held[0].limiter is one
    left = asyncio.create_task(slots.acquire(one))
    await asyncio.sleep(0)
    slots.close(one)
    assert (await asyncio.wait_for(left, 1)).limiter is two


async def who_waits_for_the_only_open_one_gets_that_one_when_another_comes_back() -> None:
    one, two = Limiter(1), Limiter(1)
    slots = Slots([one, two])
    slots.close(two)
    held = await slots.acquire(one)
    patient = asyncio.create_task(slots.acquire(one))
    await asyncio.sleep(0)
    slots.reopen(two)
    await asyncio.sleep(0)
    assert not patient.done(), "two does not know the key of its request"
    slots.release(held)
    assert (await asyncio.wait_for(patient, 1)).limiter is one


async def one_that_is_left_does_not_come_back() -> None:
    one, two = Limiter(1), Limiter(1)
    slots = Slots([one, two])
    slots.leave(one)
    slots.reopen(one)
    (taken,) = await take(slots, 1)
    assert taken.limiter is two
    slots.release(taken)
    slots.close(two)
    assert [slot.limiter for slot in await take(slots, 1)] == [two]


@pytest.mark.parametrize(
    "check",
    [
        the_next_goes_where_fewest_are_in_flight,
        one_after_the_other_is_shared_out_evenly,
        a_wait_at_one_holds_nobody_up_at_the_other,
        a_closed_one_gives_none_while_another_is_open,
        who_waits_for_one_gets_that_one_until_it_is_closed,
        who_waits_for_the_only_open_one_gets_that_one_when_another_comes_back,
        one_that_is_left_does_not_come_back,
    ],
    ids=lambda check: check.__name__,
)
def test_of_several_limiters(check: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(check())
