"""Files of label distributions: one column of probabilities, or of their natural logs, for each label."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harvest.chat.reply import LEAST_MASS
from harvest.chat.scoring import LOG_ZERO
from harvest.importing.layouts import FileLayout
from harvest.importing.match import NOWHERE, Ints
from harvest.importing.records import find_texts
from harvest.importing.vectors import BLOCK_BYTES, Array
from shared.console import say
from shared.errors import DataError
from shared.schema import Answer, Status
from shared.tasks.tables import open_table

if TYPE_CHECKING:
    import polars as pl

_TOLERANCE = 1e-2  # of a sum of probabilities: tools round
_ROUNDING = 1e-6  # of such a sum in float32


@dataclass(frozen=True, slots=True)
class FileScores:
    """The numbers of a file, float64 (rows, labels), on disk; NaN throughout in a row that has none.

    `logs` is whether they are natural logs of probabilities. With `several` labels a row, each is its label's own.
    """

    array: Array
    logs: bool
    several: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as it is kept."""
        return 4 * int(self.array.shape[1])

    def read(self, numbers: Ints) -> list[Answer]:
        """Give the answers of rows by their numbers: unasked, where a number is NOWHERE or the row has no numbers."""
        return [self._read(number) for number in numbers.tolist()]

    def _read(self, number: int) -> Answer:
        row = None if number == NOWHERE else self.array[number]
        if row is None or np.isnan(row[0]):
            return Answer(Status.UNASKED)
        probabilities = np.exp(row) if self.logs else row
        residual = 0.0 if self.several else max(0.0, 1.0 - math.fsum(probabilities))
        if 1.0 - residual < LEAST_MASS:
            return Answer(Status.UNPARSABLE, error="next to none of the probability is on a label", cost_usd=None)
        with np.errstate(divide="ignore"):
            logprobs = row if self.logs else np.log(row)
        return Answer(
            Status.OK,
            label_logprobs=np.clip(logprobs, LOG_ZERO, 0.0).tolist(),
            residual_mass=residual if residual > _ROUNDING else 0.0,
            cost_usd=None,
        )


@dataclass(frozen=True, slots=True)
class OpenScores:
    """A file of distributions, and what its rows are matched by."""

    scores: FileScores
    ids: "pl.Series | None"
    texts: list[list[int]] | None


def open_scores(path: Path, layout: FileLayout, scratch: Path, *, several: bool = False) -> OpenScores:
    """Read a file of distributions into a scratch file.

    Raises DataError, naming the row, for what is no number, for NaN and infinity, for gaps in a row, and for numbers
    that are no probabilities: below 0 or more than 1 together, or with `several` labels a row more than 1 each.
    """
    import polars as pl

    ids: list[pl.Series] = []
    texts: list[list[int]] | None = [] if layout.texts else None
    start = 0
    with scratch.open("wb") as file:
        for frame in open_table(path).read_frames(layout.columns):
            if layout.ids is not None:
                ids.append(frame[layout.ids].cast(pl.String))
            if texts is not None:
                texts += [find_texts(row, layout.texts) for row in frame.iter_rows(named=True)]
            _read_block(path, frame, layout, start).tofile(file)
            start += frame.height
    if not start:
        raise DataError(f"{path} has no rows")
    array = np.memmap(scratch, np.float64, "r", shape=(start, len(layout.answers)))
    scores = FileScores(array, _are_logs(path, array), several)
    _check_sums(path, scores)
    return OpenScores(scores, pl.concat(ids) if ids else None, texts)


def _read_block(path: Path, frame: "pl.DataFrame", layout: FileLayout, start: int) -> Array:
    import polars as pl

    columns = []
    for name in layout.answers:
        column = frame[name]
        given = column.str.strip_chars().replace("", None) if column.dtype == pl.String else column
        numbers = given.cast(pl.Float64, strict=False)
        for row in np.flatnonzero((numbers.is_null() & given.is_not_null()).to_numpy())[:1]:
            raise DataError(f"{path}, row {start + int(row)}: {column[int(row)]!r} in the column {name!r} is no number")
        columns.append(numbers)
    gaps = np.stack([column.is_null().to_numpy() for column in columns], axis=1)
    block: Array = np.stack([column.fill_null(0.0).to_numpy() for column in columns], axis=1)
    wrong = np.isnan(block) | (block == np.inf)
    partly = gaps.any(axis=1) & ~gaps.all(axis=1)
    for bad, what in ((wrong.any(axis=1), "NaN or infinity"), (partly, "a number for some of the labels only")):
        if bad.any():
            raise DataError(f"{path}, row {start + int(np.argmax(bad))}: it has {what}")
    block[gaps.all(axis=1)] = np.nan
    return block


def _are_logs(path: Path, array: Array) -> bool:
    """Whether the numbers are logs: none is above 0, and one below."""
    low, high = float(np.nanmin(array, initial=0.0)), float(np.nanmax(array, initial=-np.inf))
    if low >= 0:
        return False
    if high <= _TOLERANCE:
        return True
    raise DataError(
        f"{path} has numbers from {low:g} to {high:g}: neither probabilities, from 0 to 1, nor their natural logs, "
        "none above 0. Of logits make probabilities first (softmax)"
    )


def _check_sums(path: Path, scores: FileScores) -> None:
    """Raise DataError where probabilities are more than 1 together; say how many are less."""
    array = scores.array
    rows = max(1, BLOCK_BYTES // (8 * array.shape[1]))
    less, lost = 0, 0.0
    for start in range(0, len(array), rows):
        block = np.asarray(array[start : start + rows])
        shares = np.exp(block) if scores.logs else block
        sums = shares.max(axis=1) if scores.several else shares.sum(axis=1)
        if (sums > 1 + _TOLERANCE).any():
            row = int(np.argmax(sums > 1 + _TOLERANCE))
            raise DataError(
                f"{path}, row {start + row}: the probabilities of the labels {'reach' if scores.several else 'sum to'} "
                f"{sums[row]:.4g}, more than 1. Are they logits, or percentages"
                f"{'' if scores.several else ', or of labels that do not exclude each other (--multilabel)'}?"
            )
        under = sums < 1 - _TOLERANCE
        less += int(under.sum())
        lost += float((1 - sums[under]).sum())
    if less and not scores.several:
        say(
            f"{path}: in {less:,} rows the labels' probabilities sum to less than 1, by {lost / less:.3f} in the mean; "
            "the rest is kept as probability on no label"
        )
