"""Which rows of the source are kept, found by their fingerprints a bucket at a time.

Under one recipe the key of a request follows from the row's texts, so equal texts have the kept row's key. One row of
each part of the shards is computed to make sure; where that says otherwise (the code that makes requests was changed),
all of the part are, and rows that are kept under another key are found by nobody.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shared.buckets import Array, Buckets, join_buckets
from shared.example import Example, Message
from shared.schema import Status
from shared.shards import STATUSES, KeptPart

if TYPE_CHECKING:
    import polars as pl

MakeKey: TypeAlias = Callable[[Example, int], tuple[str, str | None]]
Digests: TypeAlias = np.ndarray[Any, np.dtype[np.bytes_]]

FAILED, UNASKED = STATUSES.index(Status.FAILED), STATUSES.index(Status.UNASKED)
_FINGERPRINT: list[tuple[str, Any]] = [("first", np.uint64), ("second", np.uint64)]
_KEPT = np.dtype([*_FINGERPRINT, ("draw", np.int32), ("status", np.uint8), ("key", "S32")])
_SOURCE = np.dtype([*_FINGERPRINT, ("place", np.int64)])
_CLAIM = np.dtype([("place", np.int64), ("status", np.uint8), ("key", "S32")])


@dataclass(frozen=True, slots=True)
class Match:
    """Rows of a split, by their places in the source, of which one draw is kept; with kept keys and statuses."""

    draw: int
    places: Array
    keys: Digests
    statuses: Array

    def select(self, rows: Array) -> "Match":
        """Those that a mask marks."""
        return Match(self.draw, self.places[rows], self.keys[rows], self.statuses[rows])


class KeptRows:
    """The kept rows of one split: see `find`. `make_key` is None where keys follow from more than a row's texts."""

    def __init__(self, make_key: MakeKey | None) -> None:
        self._make_key = make_key
        self._rows = Buckets(_KEPT)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, part: KeptPart) -> None:
        """Add some kept rows, but those whose key is another one now."""
        kept = part.kept
        if self._make_key is not None and len(kept.draws) and not self._has_keys(part, [0]).all():
            kept = kept.select(self._has_keys(part, range(len(kept.draws))))
        records = np.empty(len(kept.draws), _KEPT)
        records["first"], records["second"] = kept.fingerprints.T
        records["draw"], records["status"], records["key"] = kept.draws, kept.statuses, kept.request_keys
        self._rows.add(records, records["first"])

    def _has_keys(self, part: KeptPart, rows: Iterable[int]) -> Array:
        assert self._make_key is not None
        numbers = list(rows)
        examples = _make_examples(part.frame[numbers])
        made = [
            self._make_key(example, draw)[0]
            for example, draw in zip(examples, part.kept.draws[numbers].tolist(), strict=True)
        ]
        return np.array(np.frombuffer(bytes.fromhex("".join(made)), "S32") == part.kept.request_keys[numbers])

    def find(self, source: "SourceRows", draws: int) -> Iterator[Match]:
        """Find which rows of the source are kept, of each of so many draws."""
        for own, kept in join_buckets(source.rows, self._rows):
            for draw in range(draws):
                mine = kept[kept["draw"] == draw]
                mine = mine[np.argsort(mine["first"], kind="stable")]
                found, at = find_equal(own, mine)
                yield Match(draw, own["place"][found], mine["key"][at], mine["status"][at])


class SourceRows:
    """The fingerprints of rows of one split of the source, each with its place there."""

    def __init__(self) -> None:
        self.rows = Buckets(_SOURCE)

    def add(self, fingerprints: Array, places: Array) -> None:
        """Add some rows."""
        records = np.empty(len(places), _SOURCE)
        records["first"], records["second"] = fingerprints.T
        records["place"] = places
        self.rows.add(records, records["first"])


class Claims:
    """Kept rows by their places among the `rows` of a split, whose keys are compared when the source comes to them."""

    def __init__(self, rows: int) -> None:
        self._step = (2**64 - 1) // max(1, rows)  # so that buckets are in the order of places
        self._claims = Buckets(_CLAIM)

    def __len__(self) -> int:
        return len(self._claims)

    def add(self, match: Match) -> None:
        """Add what was found of one draw."""
        records = np.empty(len(match.places), _CLAIM)
        records["place"], records["status"], records["key"] = match.places, match.statuses, match.keys
        self._claims.add(records, records["place"].astype(np.uint64) * np.uint64(self._step))

    def take(self, start: int, end: int) -> Array:
        """Give those of the places from `start` up to `end`, in their order."""
        first, last = (place * self._step >> 56 for place in (start, end - 1))
        found = np.concatenate([self._claims.read(bucket) for bucket in range(first, last + 1)])
        found = found[(found["place"] >= start) & (found["place"] < end)]
        return np.asarray(found[np.argsort(found["place"], kind="stable")])


def find_equal(rows: Array, others: Array) -> tuple[Array, Array]:
    """Find the rows whose fingerprint one of `others` has, sorted by their first number: which, and the first such one.

    Each is the number of a row.
    """
    numbers, at = np.arange(len(rows)), np.searchsorted(others["first"], rows["first"])
    found = [np.zeros((2, 0), np.int64)]
    while len(numbers):
        inside = at < len(others)
        numbers, at = numbers[inside], at[inside]
        alike = others["first"][at] == rows["first"][numbers]
        numbers, at = numbers[alike], at[alike]
        same = others["second"][at] == rows["second"][numbers]
        found.append(np.stack([numbers[same], at[same]]))
        numbers, at = numbers[~same], at[~same] + 1  # one half of the fingerprint is equal, by chance
    which, first = np.concatenate(found, axis=1)
    return which, first


def _make_examples(frame: "pl.DataFrame") -> Iterator[Example]:
    """The examples of kept rows, without what no key depends on."""
    for row in frame.iter_rows(named=True):
        choices, said = row["choices"], row["messages"]
        yield Example(
            row["sample_id"],
            row["text"],
            row["text_pair"],
            None if choices is None else tuple(choices),
            messages=None if said is None else tuple(Message(one["role"], one["content"]) for one in said),
        )
