"""Batches of rows that are about as long as each other, the longest first, and their results in the rows' own order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from distill.compute.processes import Processes
from shared.console import track

R = TypeVar("R")


def batch_by_length(lengths: Sequence[int], batch_tokens: int, groups: Sequence[Any] | None = None) -> list[list[int]]:
    """Give the rows of each batch, the longest rows first: what does not fit in memory fails at once.

    A batch, padded to its longest row, has at most `batch_tokens` tokens, or one row. Rows of different `groups` share
    no batch.
    """
    keys = [0] * len(lengths) if groups is None else groups
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: dict[Any, list[list[int]]] = {}
    for row in order:
        mine = batches.setdefault(keys[row], [[]])
        if mine[-1] and (len(mine[-1]) + 1) * lengths[mine[-1][0]] > batch_tokens:
            mine.append([])
        mine[-1].append(row)
    together = [batch for mine in batches.values() for batch in mine]
    return sorted(together, key=lambda batch: -lengths[batch[0]])


def run_batches(
    compute: Callable[[list[int]], Sequence[R]],
    batches: Sequence[list[int]],
    rows: int,
    processes: Processes,
    description: str,
) -> list[R]:
    """Compute each batch's results, a result a row, and give those of all `rows` in order, with progress shown.

    Of several processes, each computes every count-th batch, and all get all results. Where they share the weights of
    what computes, all compute equally many, be it a batch that another has, too.
    """
    own: dict[int, R] = {}
    mine = batches[processes.rank :: processes.count]
    with track(description, sum(map(len, mine))) as tracker:
        for batch in mine:
            own.update(zip(batch, compute(batch), strict=True))
            tracker.advance(len(batch))
    if processes.shards and len(mine) < -(-len(batches) // processes.count):
        compute(batches[-1])
    results = {row: result for part in processes.gather_objects(own) for row, result in part.items()}
    return [results[row] for row in range(rows)]


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool) -> Iterator[list[int]]:
    """Pad each row to the longest one's length."""
    width = max(map(len, rows))
    for row in rows:
        filling = [value] * (width - len(row))
        yield [*filling, *row] if left else [*row, *filling]
