"""Filters and sorts the lines of a snapshot: what a page's query asks for."""

import polars as pl

from harvest.looking.agreement import RIGHT, UNJUDGED, WRONG
from harvest.looking.view.config import RowQuery
from harvest.looking.view.rows import Snapshot

_VERDICTS = {"right": RIGHT, "wrong": WRONG, "unjudged": UNJUDGED}
_SORTED_BY = {
    "split": pl.col("split"),
    "status": pl.col("status"),
    "gold": pl.col("label"),
    "said": pl.col("said"),
    "verdict": pl.when(pl.col("verdict") != UNJUDGED).then("verdict"),
    "mass": pl.col("residual_mass"),
    "cost": pl.col("cost_usd"),
    "asked": pl.col("asked_at"),
}
_SOUGHT = ("sample_id", "text", "text_pair", "reply")


def select_lines(snapshot: Snapshot, query: RowQuery) -> pl.DataFrame:
    """All current lines that pass the filters of a query, in its order; lines without a value to sort by come last.

    Only a search reads texts, of the lines that pass the other filters.
    """
    lines = snapshot.rows.filter(*_make_conditions(snapshot, query))
    if query.find:
        lines = _search(snapshot, lines, query.find)
    if query.sort == "order":
        return lines.reverse() if query.down else lines
    return lines.sort(_SORTED_BY[query.sort], descending=query.down, nulls_last=True, maintain_order=True)


def _make_conditions(snapshot: Snapshot, query: RowQuery) -> list[pl.Expr]:
    labels = {name: number for number, name in enumerate(snapshot.manifest.labels)}
    wanted = {
        "split": query.split,
        "status": query.status,
        "label": None if query.gold is None else labels.get(query.gold, -1),
        "said": None if query.said is None else labels.get(query.said, -1),
        "verdict": None if query.verdict is None else _VERDICTS[query.verdict],
    }
    conditions = [pl.col(name) == value for name, value in wanted.items() if value is not None]
    least = {"residual_mass": query.mass, "cost_usd": query.cost}
    return conditions + [pl.col(name) >= value for name, value in least.items() if value is not None]


def _search(snapshot: Snapshot, lines: pl.DataFrame, sought: str) -> pl.DataFrame:
    """The lines whose row has a text in its id, its texts or its reply, in any case."""
    found = [lines.clear()]
    for own, table in snapshot.read_columns(lines, _SOUGHT):
        texts = pl.DataFrame(pl.from_arrow(table))
        hits = (pl.col(name).str.to_lowercase().str.contains(sought.lower(), literal=True) for name in _SOUGHT)
        found.append(own.filter(texts.select(pl.any_horizontal(*hits).fill_null(False)).to_series()))
    return pl.concat(found)
