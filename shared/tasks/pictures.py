"""Columns of pictures: where each lies, or the bytes of its file. No picture is opened here.

A value is a path (from the folder of the data file), an http(s) or data: URL, bytes, the hub's image feature
{bytes, path}, or a list of these. In JSONL and CSV, objects and lists are JSON, and what is not a list is one picture.
"""

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import DataError
from shared.example import RowPicture
from shared.tasks.tables import Table

if TYPE_CHECKING:
    import polars as pl

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters and more: one is a drive
_DATA_URL = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)
_SUFFIX = re.compile(r"\.(png|jpe?g|jfif|webp|gif|bmp|tiff?|avif|jp2)([?#].*)?$", re.IGNORECASE)
_LOOKED_AT = 50  # values of a column of strings that tell whether they are pictures
_LOOKED_FOR = 1000  # rows of which it is seen whether the files of their pictures are there


def make_picture_type() -> "pl.DataType":
    """The polars type of the column `pictures`: a list of what a RowPicture has."""
    import polars as pl

    return pl.List(pl.Struct({"place": pl.String, "content": pl.Binary, "problem": pl.String}))


def read_pictures(column: "pl.Series", folder: Path) -> "pl.Series":
    """The pictures of each row, of make_picture_type; null for none.

    Relative paths are from `folder`. A value that is no picture is one with a problem: it is a matter of its row alone.
    Raises DataError where no value can be one.
    """
    import polars as pl

    kind = _find_kind(column.dtype)
    if kind not in (pl.String, pl.Binary, pl.Null) and not isinstance(kind, pl.Struct):
        raise DataError(f"the column {column.name!r} holds {column.dtype}: no paths, URLs or bytes of pictures")
    rows = [[asdict(picture) for picture in read_value(value, folder)] or None for value in column.to_list()]
    return pl.Series("pictures", rows, make_picture_type())


def look_for_pictures(tables: Sequence[Table], column: str) -> str:
    """Say how many of the first rows have pictures, and whose files are there. Raises DataError where none is."""
    pictures: list[Sequence[Mapping[str, Any]]] = []
    for table, frame in ((one, frame) for one in tables for frame in one.read_frames([column])):
        wanted = _LOOKED_FOR - len(pictures)
        pictures += [row or () for row in read_pictures(frame[column].head(wanted), table.path.parent).to_list()]
        if len(pictures) == _LOOKED_FOR:
            break
    places = [one["place"] for row in pictures for one in row if one["content"] is None and one["problem"] is None]
    paths = [place for place in places if not _ADDRESS.match(place)]
    lacking = [path for path in paths if not Path(path).is_file()]
    if lacking and len(lacking) == sum(map(len, pictures)):
        raise DataError(
            f"{tables[0].path}: none of the pictures that the column {column!r} names is there; the first would be "
            f"{lacking[0]}. Relative paths are from the folder of the file that names them. Pictures that lie beside a "
            "file of the hub are not downloaded with it: download the whole data set, and name the file in that folder"
        )
    said = f"pictures of the column {column!r} are shown to a teacher that sees, and to no student"
    if without := sum(not row for row in pictures):
        said += f"; {without:,} of the first {len(pictures):,} rows have none"
    if lacking:
        said += f"; {len(lacking):,} of the first files are missing, {lacking[0]} first: such rows are kept as failed"
    return said


def find_picture_columns(table: Table) -> list[str]:
    """The columns whose first values are pictures by their type, or by the endings of their names."""
    columns = table.read_columns()
    frame = next(table.read_frames(columns), None) if len(set(columns)) == len(columns) else None
    if frame is None:
        return []
    return [name for name in columns if _holds_pictures(frame[name].head(_LOOKED_AT).drop_nulls())]


def _find_kind(kind: "pl.DataType") -> "pl.DataType":
    """The type of one picture in a column of pictures, or of lists of them."""
    import polars as pl

    return kind.inner if isinstance(kind, pl.List) else kind  # type: ignore[return-value]


def _holds_pictures(values: "pl.Series") -> bool:
    import polars as pl

    kind = _find_kind(values.dtype)
    if isinstance(kind, pl.Struct):
        return {"bytes", "path"} <= {one.name for one in kind.fields}
    if kind != pl.String:
        return False
    pictures = [picture for value in values.to_list() for picture in read_value(value, Path())]
    named = (one.problem is None and (one.content is not None or _SUFFIX.search(one.place)) for one in pictures)
    return bool(pictures) and all(named)


def read_value(value: Any, folder: Path) -> list[RowPicture]:
    """The pictures of one value of a column."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            return [RowPicture(_shorten(value), problem="begins as JSON, and is none")]
    many = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    return [picture for one in many if (picture := _read_one(one, folder)) is not None]


def _read_one(value: Any, folder: Path) -> RowPicture | None:
    """One picture; None where the value is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        return RowPicture("", value)
    if isinstance(value, str):
        value = value.strip()
        if value[:5].lower() == "data:":
            return _decode(value)
        return RowPicture(value if _ADDRESS.match(value) else str(folder / Path(value).expanduser())) if value else None
    if isinstance(value, Mapping):
        content = value.get("bytes")
        place = value.get("path") or value.get("url") or ""
        if isinstance(content, bytes) and isinstance(place, str):
            return RowPicture(place, content)
        if content is None and isinstance(place, str):
            return _read_one(place, folder)
    return RowPicture(_shorten(value), problem="is no path, no URL, no bytes and no {bytes, path}")


def _decode(address: str) -> RowPicture:
    """The picture of a data: URL (RFC 2397)."""
    head = _DATA_URL.match(address)
    try:
        content = None if head is None else b64decode(address[head.end() :], validate=True)
    except ValueError:
        content = None
    if content is None:
        return RowPicture(_shorten(address), problem="is a data: URL without whole base64")
    return RowPicture("data:", content)


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
