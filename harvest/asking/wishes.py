"""The rows that a plan would ask about: which of them make the same request as another, and what they will take."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from harvest.teachers.base import Estimate
from shared.buckets import Array, Buckets, join_buckets

MOST_ESTIMATED = 1 << 17  # rows of which an estimate is kept; of more it is a sample's

_WISH = np.dtype([("key", "S32"), ("split", np.uint16), ("place", np.int64)])


class Wishes:
    """The wished rows of all splits, each by the split's number and its place among the draws of that."""

    def __init__(self) -> None:
        self._wishes = Buckets(_WISH)

    def add(self, split: int, places: Sequence[int], keys: bytearray) -> None:
        """Add some rows of a split, with their raw keys."""
        records = np.empty(len(places), _WISH)
        records["key"], records["split"], records["place"] = np.frombuffer(keys, "S32"), split, places
        self._wishes.add(records, take_starts(records["key"]))

    def settle(self, known: Buckets, actions: Sequence[Array], new: int, old: int) -> None:
        """Write the action `new` for the first row of each key that is not `known`, and `old` for all others.

        A split's rows come before those of the next, and then in the order in which they were added. `actions` is an
        array of each split, one entry a place.
        """
        if not len(self._wishes):
            return
        for wishes, keys in join_buckets(self._wishes, known):
            wished = wishes[np.argsort(wishes["split"], kind="stable")]
            chosen = np.where(find_new(wished["key"], keys), new, old)
            for split in np.unique(wished["split"]).tolist():
                own = wished["split"] == split
                actions[split][wished["place"][own]] = chosen[own]


class Estimates:
    """What wished rows will take: an estimate of each, or of many a sample, those whose keys are lowest."""

    def __init__(self) -> None:
        self._below = 2**64  # the start of a key of which an estimate is kept
        self._starts, self._places, self._values = array("Q"), array("q"), array("d")

    def wants(self, key: str) -> bool:
        """Whether the row of a key is in the sample."""
        return int(key[:16], 16) < self._below

    def add(self, key: str, split: int, place: int, one: Estimate) -> None:
        """Add the estimate of a row; an unknown price is NaN."""
        cost = math.nan if one.cost_usd is None else one.cost_usd
        self._starts.append(int(key[:16], 16))
        self._places.extend((split, place))
        self._values.extend((one.input_tokens, one.image_tokens, one.output_tokens, cost, one.bytes))
        while len(self._starts) > MOST_ESTIMATED:
            self._halve()

    def _halve(self) -> None:
        self._below //= 2
        starts, places, values = self._give()
        kept = starts < self._below
        self._starts, self._places = array("Q", starts[kept].tolist()), array("q", places[kept].ravel().tolist())
        self._values = array("d", values[kept].ravel().tolist())

    def sum_up(self, actions: Sequence[Array], action: int, count: int) -> Estimate:
        """Give what the `count` rows that have an action will take together."""
        _, places, values = self._give()
        asked = np.array([actions[split][place] == action for split, place in places.tolist()], np.bool_)
        asked = asked if asked.any() or not count else np.ones(len(places), np.bool_)  # of as many, none fell into it
        scale = count / asked.sum() if asked.any() else 0.0
        tokens, image_tokens, output_tokens, cost, size = (values[asked].sum(axis=0) * scale).tolist()
        return Estimate(tokens, image_tokens, output_tokens, None if math.isnan(cost) else cost, size)

    def _give(self) -> tuple[Array, Array, Array]:
        values = np.array(self._values).reshape(-1, len(fields(Estimate)))
        return np.array(self._starts, np.uint64), np.array(self._places, np.int64).reshape(-1, 2), values


def find_new(keys: Array, known: Array) -> Array:
    """Which of some raw keys come for the first time, and are not `known`."""
    import polars as pl

    # Eight bytes tell nearly all keys apart, and are compared at a hundredth of the price; the others are, in whole.
    starts = pl.Series(take_starts(keys))
    alike = np.flatnonzero(starts.is_duplicated().to_numpy())
    is_new = np.ones(len(keys), np.bool_)
    is_new[alike] = False
    is_new[alike[np.unique(keys[alike], return_index=True)[1]]] = True
    if len(known):
        maybe = is_new & starts.is_in(pl.Series(take_starts(known)).implode()).to_numpy()
        if maybe.any():
            is_new[maybe] = ~np.isin(keys[maybe], known)
    return is_new


def take_starts(keys: Array) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """The first eight bytes of raw keys, as a number."""
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 4)[:, 0]
