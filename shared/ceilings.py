"""What a reader of the text alone gets right at most: rows of one text with different labels tell it nothing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

TEXTS = ("text", "text_pair")


def bound_accuracy(rows: "pl.DataFrame") -> float | None:
    """The accuracy, on these rows, of answering each text with its most frequent label; None of no rows.

    `rows` has the columns `text` and `label`, of any types; a null label is none.
    """
    import polars as pl

    labelled = rows.filter(pl.col("label").is_not_null())
    if not len(labelled):
        return None
    most = labelled.group_by("text", "label").len().group_by("text").agg(pl.col("len").max())
    return int(most["len"].sum()) / len(labelled)


def hash_row_texts(frame: "pl.DataFrame") -> "pl.Series":
    """Hash what each row says, in the columns of TEXTS that there are: equal in one process where the texts are."""
    said = frame.select(name for name in TEXTS if name in frame.columns)
    return said.hash_rows(0).alias("text")
