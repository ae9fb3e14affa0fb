"""What a student that reads the text alone can get right at most on the rows that score it."""

from collections.abc import Mapping

from distill.data.run_rows import RunRows, mark_scored
from distill.data.split import Split
from shared.ceilings import TEXTS, bound_accuracy, hash_row_texts
from shared.shards.read import read_row_group


def find_ceilings(rows: RunRows) -> Mapping[str, float]:
    """Give the best accuracy that the texts allow on `dev` and on `test`, where it is below 1; of classes only.

    Below 1 it is where rows of one text have different labels: what a teacher was shown beside the text tells them
    apart, and no student is shown that.
    """
    if rows.manifest.kind != "classification":
        return {}
    parts = {"dev": rows.dev, "test": rows.test}
    bounds = {name: _bound(split) for name, split in parts.items() if split is not None}
    return {name: bound for name, bound in bounds.items() if bound is not None and bound < 1}


def _bound(split: Split) -> float | None:
    import polars as pl

    scored, said = mark_scored(split), []
    for group, start in zip(split.groups, split.starts(), strict=True):
        here = scored[start : start + group.rows]
        if here.any():
            frame = pl.DataFrame(pl.from_arrow(read_row_group(group, TEXTS)))
            labels = pl.Series("label", split.target[start : start + group.rows])
            said.append(frame.select(hash_row_texts(frame), labels).filter(pl.Series(here)))
    return bound_accuracy(pl.concat(said)) if said else None
