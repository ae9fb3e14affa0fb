"""Several labels a row: a list, a text that holds one, or a column of 0 and 1 for each label.

A row whose cell is missing or blank has no known labels; an empty list, and 0 in every column, say that none fits.
"""

from typing import TYPE_CHECKING

from shared.errors import DataError
from shared.tasks.task import Source

if TYPE_CHECKING:
    import polars as pl

# Of a list that is written out, as JSON or as Python writes it: what stands in quotes, or between commas.
_WRITTEN = r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\[\],'"\s][^\[\],'"]*"""
_SEPARATED = r"[^,;|]+"
_MISSING = ("", "-1", "nan", "none", "null")  # in a column of 0 and 1
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


def read_label_sets(raw: "pl.DataFrame", source: Source, first_row: int) -> "pl.Series":
    """The labels of each row as the file has them, `values`: a list of strings, each once; null where none are known.

    `first_row` is the number of the first row. Raises DataError for a column of another kind, and for a cell that is
    neither 0 nor 1.
    """
    sets = _read_columns(raw, source, first_row) if source.label_columns else _read_lists(raw, source.label)
    return sets.alias("values")


def _read_lists(raw: "pl.DataFrame", name: str | None) -> "pl.Series":
    import polars as pl

    assert name is not None, "rows with several labels have a label column, or a column for each"
    column = raw[name]
    each = pl.element()
    if column.dtype == pl.String:
        cell = pl.col(name).str.strip_chars()
        written = cell.str.extract_all(_WRITTEN).list.eval(each.str.strip_chars().str.strip_chars("\"'"))
        sets = pl.when(cell.str.starts_with("[")).then(written).otherwise(cell.str.extract_all(_SEPARATED))
        sets = pl.when(cell != "").then(sets)
    elif isinstance(column.dtype, pl.List | pl.Array) and not column.dtype.inner.is_nested():
        sets = pl.col(name).cast(pl.List(pl.String))
    else:
        raise DataError(
            f"the column {name!r} holds {column.dtype}, not several labels a row: they are a list, or a text like a|b"
        )
    sets = sets.list.eval(each.str.strip_chars()).list.eval(each.filter(each != ""))
    return raw.select(sets.list.unique(maintain_order=True).alias(name))[name]


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
            raise DataError(f"row {first_row + row}: {raw[name][row]!r} in the column {name!r} is neither 0 nor 1")
    chosen = [pl.when(pl.col(name).is_in(_YES)).then(pl.lit(name)) for name in names]
    sets = pl.concat_list(chosen).list.drop_nulls()
    return cells.select(pl.when(pl.lit(known)).then(sets).alias("values"))["values"]
