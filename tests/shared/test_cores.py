"""A thread a core: what is computed keeps its order, and nothing is left out."""

from collections.abc import Sequence

import pytest
import torch

from shared.cores import CorePool, count_cores, share_out


@pytest.mark.parametrize(("items", "parts"), [(0, 3), (1, 3), (7, 3), (9, 3), (5, 1)])
def test_items_are_shared_out_in_order_and_evenly(items: int, parts: int) -> None:
    shares = share_out(list(range(items)), parts)
    assert [item for share in shares for item in share] == list(range(items))
    assert len(shares) == min(items, parts)
    assert max(map(len, shares), default=0) - min(map(len, shares), default=0) <= 1


def test_a_pool_gives_results_in_the_order_of_the_items_and_computes_with_one_thread_each() -> None:
    pool = CorePool(3)
    try:
        assert pool.map(_count_threads, list(range(10))) == [(item, 1) for item in range(10)]
    finally:
        pool.close()


def test_an_error_of_one_part_is_raised() -> None:
    pool = CorePool(2)
    try:
        with pytest.raises(ZeroDivisionError):
            pool.map(_divide, [1, 2, 0])
    finally:
        pool.close()


def test_there_is_a_core() -> None:
    assert count_cores() >= 1
    assert CorePool().threads == count_cores()


def _count_threads(items: Sequence[int]) -> list[tuple[int, int]]:
    return [(item, torch.get_num_threads()) for item in items]


def _divide(items: Sequence[int]) -> list[float]:
    return [1 / item for item in items]
