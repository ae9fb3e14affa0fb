"""Several labels a row: a list, a text that holds one, or a column of 0 and 1 for each label.

A row whose cell is missing or blank has no known labels; an empty list, and 0 in every column, say that none fits.
"""

import json
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from shared.errors import DataError
from shared.tasks.task import Source, Task

if TYPE_CHECKING:
    import polars as pl

# Of a list that is written out as Python or numpy writes it: what stands in quotes, or between commas.
_WRITTEN = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\[\],'"\s][^\[\],'"]*""")
_ESCAPED = re.compile(r"""\\(["'\\])""")
_SEPARATOR = re.compile(r"[,;|]")
_MISSING = ("", "-1", "nan", "none", "null")  # in a column of 0 and 1
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


def read_label_sets(raw: "pl.DataFrame", source: Source, first_row: int) -> "pl.Series":
    """The labels of each row as the file has them, `values`: a list of strings, each once; null where none are known.

    `first_row` is the number of the first row. Raises DataError for a column of another kind, and for a cell that is
    neither 0 nor 1.
    """
    sets = _read_columns(raw, source, first_row) if source.label_columns else _read_lists(raw, source.label)
    return sets.alias("values")


def describe_joined(task: Task, labels: Collection[str]) -> list[str]:
    """Say which of the labels that were found looks like several others, where a row is to have one."""
    if task.kind != "classification" or task.labels:
        return []
    parts = {label: [part.strip() for part in _SEPARATOR.split(label)] for label in sorted(labels)}
    joined = [label for label, own in parts.items() if len(own) > 1 and set(own) <= {*labels}]
    return [f"{joined[0]!r} looks like several labels: where a row has several, say --multilabel"] if joined else []


def _read_lists(raw: "pl.DataFrame", name: str | None) -> "pl.Series":
    import polars as pl

    assert name is not None, "rows with several labels have a label column, or a column for each"
    column = raw[name]
    if column.dtype == pl.String:
        return _read_texts(column)
    if not isinstance(column.dtype, pl.List | pl.Array) or column.dtype.inner.is_nested():
        raise DataError(
            f"the column {name!r} holds {column.dtype}, not several labels a row: they are a list, or a text like a|b"
        )
    each = pl.element()
    sets = pl.col(name).cast(pl.List(pl.String)).list.eval(each.str.strip_chars())
    return raw.select(sets.list.eval(each.filter(each != "")).list.unique(maintain_order=True))[name]


def _read_texts(column: "pl.Series") -> "pl.Series":
    """The labels in each text. The same ones recur: each text is read once."""
    import polars as pl

    frame = column.str.strip_chars().to_frame("cell")
    cells = frame["cell"].drop_nulls().unique().to_list()
    read = {"cell": cells, "values": [_read_text(cell, column.name) for cell in cells]}
    known = pl.DataFrame(read, schema={"cell": pl.String, "values": pl.List(pl.String)})
    return frame.join(known, on="cell", how="left", maintain_order="left")["values"]


def _read_text(cell: str, name: str) -> list[str] | None:
    """The labels in one text, each once; None where it is blank."""
    if not cell:
        return None
    found = (label.strip() for label in (_read_list(cell, name) if cell[0] == "[" else _SEPARATOR.split(cell)))
    return list(dict.fromkeys(filter(None, found)))


def _read_list(cell: str, name: str) -> list[str]:
    """The items of a list that is written out: as JSON, or as Python or numpy writes it."""
    try:
        read = json.loads(cell)
    except (ValueError, RecursionError):
        items = _WRITTEN.findall(cell)
        return [_ESCAPED.sub(r"\1", item[1:-1]) if item[0] in "\"'" else item for item in items if item != "None"]
    if nested := [one for one in read if isinstance(one, dict | list)]:
        raise DataError(f"the column {name!r} holds lists of {json.dumps(nested[0])[:60]}, not of labels")
    return [one if isinstance(one, str) else json.dumps(one) for one in read if one is not None]


def _read_columns(raw: "pl.DataFrame", source: Source, first_row: int) -> "pl.Series":
    import polars as pl

    names = source.label_columns
    cells = raw.select(
        pl.col(name).cast(pl.String).fill_null("").str.strip_chars().str.to_lowercase().str.replace(r"\.0$", "")
        for name in names
    )
    known = cells.select(pl.any_horizontal(~pl.col(name).is_in(_MISSING) for name in names)).to_series()
    for name in names:
        wrong = (known & ~cells[name].is_in([*_YES, *_NO])).arg_true()
        if len(wrong):
            row = wrong[0]
            raise DataError(
                f"row {first_row + row}: {raw[name][row]!r} in the column {name!r} is neither 0 nor 1; a row of which "
                "nobody knows has none in any of these columns"
            )
    chosen = [pl.when(pl.col(name).is_in(_YES)).then(pl.lit(name)) for name in names]
    sets = pl.concat_list(chosen).list.drop_nulls()
    return cells.select(pl.when(pl.lit(known)).then(sets).alias("values"))["values"]
