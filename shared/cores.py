"""Work side by side on the cores of this machine, a thread a core.

Two threads that share one computation are several times slower than one as soon as another process computes too,
because each waits for the other at every step. Threads that compute apart only share the cores.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


_share: int | None = None


def count_cores() -> int:
    """Count the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if _share is None else min(cores, _share)


def use_cores(count: int) -> None:
    """Leave all but `count` cores to other processes from now on."""
    global _share
    _share = count


def share_out(items: Sequence[Item], parts: int) -> list[Sequence[Item]]:
    """Split items into at most so many runs of neighbours, of like size and in their order; none is empty."""
    parts = min(parts, len(items))
    bounds = [len(items) * number // parts for number in range(parts + 1)] if parts else [0]
    return [items[start:end] for start, end in pairwise(bounds)]


class CorePool:
    """A thread a core. torch, where it is used in them, computes with one thread in each."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or count_cores()
        self._pool = ThreadPoolExecutor(self.threads, "core", initializer=_take_one_thread)

    def map(self, compute: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
        """Give what `compute` gives for all items, in their order: it is called with a run of them on each core."""
        return [each for part in self._pool.map(compute, share_out(items, self.threads)) for each in part]

    def close(self) -> None:
        """End the threads, once they are idle."""
        self._pool.shutdown()


def _take_one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # of the thread that calls it, as OpenMP has it
