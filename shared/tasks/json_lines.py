"""Lines of JSON as people and programs write them: with NaN, with half a character, with numbers of any size."""

import json
import math
import re
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import polars as pl

_SURROGATE = re.compile(r"[\ud800-\udfff]")
# One half of a pair of surrogates, as JSON escapes them.
_ESCAPED = (rb"\ud", rb"\uD")
_CUT = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")


def load_json(text: bytes) -> Any:
    """JSON, with the NaN and the infinities that Python writes; a half of a cut character (a surrogate) is U+FFFD."""
    try:
        return orjson.loads(text)
    except ValueError:
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        spelled = json.dumps(value, ensure_ascii=False)
        return json.loads(_SURROGATE.sub("\ufffd", spelled)) if _SURROGATE.search(spelled) else value


def dump_json(value: Any) -> bytes:
    """JSON on one line, with numbers of any size."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False).encode()


def load_lines(block: bytes) -> list[dict[str, Any]]:
    """The objects of lines of JSON. Raises ValueError."""
    rows = [load_json(line) for line in block.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    return rows


def _read_strings(block: bytes, columns: list[str]) -> "pl.DataFrame":
    import polars as pl

    schema: dict[str, pl.DataType] = dict.fromkeys(columns, pl.String())
    # Of a half polars makes a NUL. Mostly nothing is escaped, which is seen at a hundredth of the price.
    is_escaped = any(mark in block for mark in _ESCAPED)
    if not (is_escaped and _CUT.search(block)):
        with suppress(pl.exceptions.PolarsError):
            return pl.read_ndjson(BytesIO(block), schema=schema)
    rows = load_lines(block)  # NaN: as pandas means it, a gap
    return pl.DataFrame({name: [_spell_value(row.get(name)) for row in rows] for name in columns}, schema=schema)


def read_lines(block: bytes, columns: list[str], lists: str | None) -> "pl.DataFrame":
    """Lines of JSON as a frame of strings, and of lists of strings in the column `lists`, where any row has one.

    Raises ValueError where a line is none.
    """
    import polars as pl

    frame = _read_strings(block, columns)
    if lists is None or not frame[lists].str.starts_with("[").any():
        return frame
    # A string may begin with a bracket too: only the lines themselves tell.
    values = [load_json(line).get(lists) for line in block.splitlines() if line.strip()]
    if not any(isinstance(value, list) for value in values):
        return frame
    texts = [
        None if value is None else list(map(_spell, value)) if isinstance(value, list) else [_spell(value)]
        for value in values
    ]
    return frame.with_columns(pl.Series(lists, texts, pl.List(pl.String)))


def _spell_value(value: object) -> str | None:
    is_gap = value is None or (isinstance(value, float) and not math.isfinite(value))
    return None if is_gap else _spell(value)


def _spell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
