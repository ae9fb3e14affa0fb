"""How much of a test set stands in the training set: whole texts, and runs of eight words.

Published scores of MultiArith and SingleEq come from students that were trained on their test problems (the authors of
LLM-Adapters say so of math_10k), so the overlap is printed beside a score. Texts are compared in lower case and without
punctuation. Runs of eight are those by which PaLM (arXiv:2204.02311) tells test rows that were seen in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import polars as pl

_Hashes: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: no word of a run is lost when the hash wraps


@dataclass(frozen=True, slots=True)
class Overlap:
    """What of `rows` test texts stands in the training set: `exact` as a whole, `shared` with a run of `words` words.

    A text with fewer words than that has no run. `covered` is the mean share of a text's runs that the training set
    has, over the texts that have any.
    """

    rows: int
    exact: int
    shared: int
    covered: float
    words: int

    @property
    def exact_share(self) -> float:
        """The part of the test texts that stand in the training set as a whole, 0 to 1."""
        return self.exact / self.rows if self.rows else 0.0

    @property
    def shared_share(self) -> float:
        """The part of the test texts that have a run of words in the training set, 0 to 1."""
        return self.shared / self.rows if self.rows else 0.0

    def describe(self) -> str:
        """Say it in a line, to stand beside a score."""
        return (
            f"of {self.rows:,} test rows {self.exact:,} ({self.exact_share:.1%}) stand in train as a whole, "
            f"{self.shared:,} ({self.shared_share:.1%}) share {self.words} words in a row with it, "
            f"{self.covered:.1%} of such runs on average"
        )


def measure_overlap(test: Sequence[str], train: Sequence[str], words: int = 8) -> Overlap:
    """Count the test texts that are in the training set, as a whole and by runs of `words` words.

    Equality is that of 64-bit hashes: a run is taken for one of ten million others by chance with probability 5e-13.
    """
    tests, trains = _split_words(test), _split_words(train)
    exact = tests["whole"].is_in(trains["whole"].unique().implode()) & (tests["words"].list.len() > 0)
    runs, owners = _hash_runs(tests, words)
    known = np.isin(runs, np.unique(_hash_runs(trains, words)[0]))
    total = np.bincount(owners, minlength=len(test))
    found = np.bincount(owners, weights=known, minlength=len(test))
    has_runs = total > 0
    covered = float((found[has_runs] / total[has_runs]).mean()) if has_runs.any() else 0.0
    return Overlap(len(test), int(exact.sum()), int((found > 0).sum()), covered, words)


def spell_words(column: str) -> "pl.Expr":
    """The words of a column of texts, lower case, one blank between them: equal where texts are but for punctuation."""
    import polars as pl

    return pl.col(column).str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars(" ")


def _split_words(texts: Sequence[str]) -> "pl.DataFrame":
    """The words of each text, lower case and without punctuation, and a hash of all of them."""
    import polars as pl

    frame = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)}).select(spell_words("text").alias("text"))
    words = pl.col("text").str.extract_all(r"[^ ]+")
    return frame.select(words.alias("words"), pl.col("text").hash().alias("whole"))


def _hash_runs(frame: "pl.DataFrame", words: int) -> tuple[_Hashes, "np.ndarray[Any, np.dtype[np.int64]]"]:
    """The hash of every run of `words` words, and the number of the text that it stands in."""
    lengths = frame["words"].list.len().to_numpy().astype(np.int64)
    hashes = frame.filter(frame["words"].list.len() > 0)["words"].explode().hash().to_numpy()
    owners = np.repeat(np.arange(len(lengths)), lengths)
    runs = max(0, len(hashes) - words + 1)
    total = np.zeros(runs, np.uint64)
    for offset in range(words):
        total = total * _FACTOR + hashes[offset : offset + runs]
    inside = owners[:runs] == owners[words - 1 :] if runs else np.zeros(0, np.bool_)
    return total[inside], owners[:runs][inside]
