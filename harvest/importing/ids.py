"""The ids of a file's rows: a column of the file itself, or another file."""

from pathlib import Path
from typing import TYPE_CHECKING

from harvest.importing.vectors import load_npy
from shared.errors import DataError
from shared.suggestions import suggest
from shared.tasks.tables import is_table, open_table

if TYPE_CHECKING:
    import polars as pl


def read_ids(chosen: str, table: Path, rows: int) -> "tuple[str, pl.Series]":
    """Read the ids of `rows` rows by what --ids says; give their name with them. `table` is the file they belong to.

    A column of `table` wins over a file of that name. Raises DataError where there are none, or not as many as rows.
    """
    if is_table(table) and chosen in open_table(table).read_columns():
        return f"the column {chosen}", _read_column(table, chosen)
    path, column = Path(chosen).expanduser(), ""
    if not path.is_file() and ":" in chosen:
        name, _, column = chosen.rpartition(":")
        path = Path(name).expanduser()
    if not path.is_file():
        there = f"; {suggest(chosen, open_table(table).read_columns())}" if is_table(table) else ""
        raise DataError(f"--ids {chosen}: {table} has no such column, and there is no such file{there}")
    ids = _read_file(path, column)
    if len(ids) != rows:
        raise DataError(f"{path} has {len(ids):,} ids, and {table} {rows:,} rows: one a row is needed, in their order")
    return str(path), ids


def _read_file(path: Path, column: str) -> "pl.Series":
    import polars as pl

    if path.suffix == ".npy":
        array = load_npy(path)
        if array.ndim != 1 or array.dtype.kind not in "iuUS":
            raise DataError(
                f"{path} holds {array.dtype} of {array.ndim} dimensions: ids are a list of texts or numbers"
            )
        return pl.Series([one.decode() if isinstance(one, bytes) else str(one) for one in array.tolist()])
    if is_table(path):
        columns = open_table(path).read_columns()
        if not column and len(columns) != 1:
            raise DataError(f"{path} has the columns {', '.join(columns)}: say which are the ids, --ids {path}:COLUMN")
        column = column or columns[0]
        if column not in columns:
            raise DataError(f"{path} has no column {column!r}; {suggest(column, columns)}")
        return _read_column(path, column)
    try:
        return pl.Series(path.read_text("utf-8-sig").splitlines(), dtype=pl.String)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8, one id a line ({error.reason})") from None


def _read_column(path: Path, column: str) -> "pl.Series":
    import polars as pl

    frames = open_table(path).read_frames([column])
    return pl.concat([frame[column].cast(pl.String) for frame in frames] or [pl.Series([], dtype=pl.String)])
