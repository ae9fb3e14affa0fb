"""Which rows of a split a run is about, beside its limits: those with a known answer, or those that another teacher is
unsure of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from shared.fingerprints import FINGERPRINTED, fingerprint_rows
from shared.schema import Status
from shared.shards import Manifest, iterate_pieces

if TYPE_CHECKING:
    import polars as pl

Array: TypeAlias = np.ndarray[Any, Any]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_TRUTH = ("label", "label_set", "target", "target_text", "references")
_READ = (*FINGERPRINTED, "draw", "status", "label_logprobs")


class Selection(Protocol):
    """Says which rows of a frame of LoadedTask.frames a run is about."""

    def __call__(self, split: str, frame: "pl.DataFrame") -> Bools:
        """Give a mask of the frame's rows, which are of `split`."""


def select_labelled(split: str, frame: "pl.DataFrame") -> Bools:
    """The rows whose right answer is known: a Selection."""
    import polars as pl

    known: Bools = frame.select(pl.any_horizontal(pl.col(name).is_not_null() for name in _TRUTH)).to_series().to_numpy()
    return known


@dataclass(frozen=True, slots=True)
class Unsure:
    """The rows that a kept teacher is unsure of: a Selection. `rows` are their sample ids and texts, hashed, by split.

    Of the `asked` rows, `failed` have no whole answer, and of `below` it is not sure enough; `scored` have
    probabilities of labels, of which a row may have `several`.
    """

    rows: Mapping[str, np.ndarray[Any, np.dtype[np.void]]]
    asked: int
    failed: int
    below: int
    scored: int
    several: bool

    def __call__(self, split: str, frame: "pl.DataFrame") -> Bools:
        """Mask the rows of a frame that are among them."""
        if split not in self.rows:
            return np.zeros(frame.height, np.bool_)
        found: Bools = np.isin(_pair(fingerprint_rows(frame)), self.rows[split])
        return found

    @property
    def count(self) -> int:
        """How many they are."""
        return self.failed + self.below


def measure_sureness(shares: Array, *, several: bool) -> Array:
    """How sure a teacher is of rows, by its probabilities (n, labels): the most probable label's.

    Of `several` labels a row each is there or is not, and the one counts of which that is least sure.
    """
    return np.asarray(np.maximum(shares, 1 - shares).min(axis=1) if several else shares.max(axis=1))


def find_unsure(folder: Path, manifest: Manifest, splits: Sequence[str], below: float) -> Unsure:
    """Find the rows of a teacher folder whose answer is not whole, or of which it is less sure than `below`.

    How sure it is says measure_sureness. Of several draws the first counts. Rows that the teacher was not asked about
    are none of them.
    """
    import polars as pl

    rows, several = {}, manifest.kind == "multilabel"
    counts = np.zeros(4, np.int64)
    for split in splits:
        found = []
        for piece in iterate_pieces(folder, manifest, _READ, split):
            table = piece.table.select(_READ).filter(pa.array(piece.current))
            statuses = np.array(table["status"].to_pylist(), dtype=object)
            asked = (table["draw"].to_numpy() == 0) & (statuses != Status.UNASKED.value)
            whole = asked & (statuses == Status.OK.value)
            scored = whole & table["label_logprobs"].is_valid().to_numpy()
            unsure = np.zeros(table.num_rows, np.bool_)
            if scored.any():
                logprobs = table["label_logprobs"].filter(pa.array(scored)).combine_chunks()
                shares = np.exp(logprobs.flatten().to_numpy().astype(np.float64)).reshape(int(scored.sum()), -1)
                unsure[scored] = measure_sureness(shares, several=several) < below
            chosen = unsure | (asked & ~whole)
            counts += [asked.sum(), (asked & ~whole).sum(), unsure.sum(), scored.sum()]
            frame = pl.DataFrame(pl.from_arrow(table.select(FINGERPRINTED).filter(pa.array(chosen))))
            if frame.height:
                found.append(_pair(fingerprint_rows(frame)))
        if found:
            rows[split] = np.concatenate(found)
    asked_rows, failed, unsure_rows, scored_rows = map(int, counts)
    return Unsure(rows, asked_rows, failed, unsure_rows, scored_rows, several)


def describe_unsure(unsure: Unsure, folder: Path, below: float) -> str:
    """Say of how many rows a kept teacher is unsure, and why."""
    share = unsure.count / unsure.asked if unsure.asked else 0.0
    told = (
        f"{folder} is unsure of {unsure.count:,} of {unsure.asked:,} rows ({share:.0%}): {unsure.failed:,} without a "
    )
    told += "whole answer"
    if unsure.scored and unsure.several:
        return f"{told}, {unsure.below:,} with a label that it neither gives nor refuses with {below:g} or more"
    if unsure.scored:
        return f"{told}, {unsure.below:,} whose most probable label has less than {below:g}"
    return f"{told}; its answers have no probabilities of labels, so no others count as unsure"


def _pair(fingerprints: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.void]]:
    """Fingerprints, (n, 2), as n values that can be compared."""
    return np.ascontiguousarray(fingerprints).view([("a", np.uint64), ("b", np.uint64)]).reshape(-1)
