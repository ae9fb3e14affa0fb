"""How a file of separated values is written: its delimiter, its quotes and its escapes, as people and programs do it.

RFC 4180 is what most files follow: a text in quotes, a quote in it doubled. Others have stray quotes and no quoting at
all (GLUE's TSV files), or a backslash before a quote (MySQL, pandas with an escapechar). What a file is, is decided
from all of its lines; one that is neither is refused by line, for a stray quote would swallow the rows behind it.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from shared.errors import DataError

_DELIMITERS = {"csv": ",;\t|", "tsv": "\t,;|"}
_LONGEST_FIELD = 1 << 24
_SHOWN_LINES = 3
_COUNTED_VALUES = 1000
_LONGEST_VALUE = 40  # of a label, beside a text


@dataclass(frozen=True, slots=True)
class Separated:
    """The delimiter; whether texts may be quoted; and whether a backslash escapes a quote (else it is doubled)."""

    delimiter: str = ","
    quoted: bool = True
    escaped: bool = False


def find_separated(path: Path, kind: str, has_quotes: bool, open_text: Callable[[], TextIO]) -> Separated:
    """Find out how the file at `path` is written. `kind` is csv or tsv. Raises DataError naming a line.

    `open_text` opens it anew, with its line ends as they are.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    with open_text() as text:
        header = next((line for line in text if line.strip()), "")
    separated = Separated(_find_delimiter(header, kind))
    if not has_quotes:
        return separated
    problem = _find_quote_problem(separated, open_text)
    if problem is None:
        return separated
    escaped = Separated(separated.delimiter, escaped=True)
    if _has_escapes(open_text) and _find_quote_problem(escaped, open_text) is None:
        return escaped
    if _is_plain(separated.delimiter, open_text):
        return Separated(separated.delimiter, quoted=False)
    raise DataError(
        f'{path}, {problem}. A quote inside a quoted text is written twice (""); or save the file as JSONL or Parquet, '
        "which have no such doubts"
    )


def _find_delimiter(header: str, kind: str) -> str:
    counts = {one: sum(len(row) - 1 for row in csv.reader([header], delimiter=one)) for one in _DELIMITERS[kind]}
    usual = _DELIMITERS[kind][0]
    best = max(counts, key=lambda one: counts[one])
    return usual if counts[usual] or not counts[best] else best


def _read_rows(separated: Separated, text: TextIO) -> "Iterator[tuple[int, int, list[str]]]":
    """The rows, each with its first and its last line, counted from 1."""
    rows = csv.reader(
        text,
        delimiter=separated.delimiter,
        strict=True,
        doublequote=not separated.escaped,
        escapechar="\\" if separated.escaped else None,
    )
    first = 1
    for row in rows:
        yield first, rows.line_num, row
        first = rows.line_num + 1


def _find_quote_problem(separated: Separated, open_text: Callable[[], TextIO]) -> str | None:
    """What is wrong where texts are quoted, with its line; None where nothing is."""
    ends: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    doubtful: list[tuple[int, int, int, str]] = []
    line, width = 1, 0
    with open_text() as text:
        try:
            for first, last, row in _read_rows(separated, text):
                line = last + 1
                if not row:
                    continue
                width = width or len(row)
                if len(row) != width:
                    return f"line {first}: {len(row)} values, and the header has {width}"
                for counter, value in zip(ends, (row[0], row[-1]), strict=True):
                    if line > 2 and len(value) <= _LONGEST_VALUE and len(counter) < _COUNTED_VALUES:
                        counter[value] += 1
                if first < last and len(doubtful) < _COUNTED_VALUES:
                    inside = (one for field in row for one in field.split("\n")[:-1])
                    doubtful += [(first, last, width, one.rstrip("\r")) for one in inside]
        except csv.Error as error:
            return f"line {line}: a quote is not closed, or stands inside a quoted text ({error})"
    for first, last, width, inner in doubtful:
        if _looks_like_row(inner, separated.delimiter, width, ends):
            return (
                f"line {first}: a quoted text goes on to line {last}, and what it holds looks like rows: {inner[:60]!r}"
            )
    return None


def _looks_like_row(line: str, delimiter: str, width: int, ends: tuple[Counter[str], Counter[str]]) -> bool:
    """Whether a line of a quoted text begins or ends as other rows do: with a value of theirs, or all with a number."""
    if width < 2 or delimiter not in line:
        return False
    first, last = line.partition(delimiter)[0], line.rpartition(delimiter)[2]
    if (last and ends[1][last]) or (first and ends[0][first] and line.count(delimiter) + 1 >= width):
        return True
    return line.count(delimiter) + 1 == width and _is_number(last) and bool(ends[1]) and all(map(_is_number, ends[1]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_escapes(open_text: Callable[[], TextIO]) -> bool:
    with open_text() as text:
        return any('\\"' in line for line in text)


def _is_plain(delimiter: str, open_text: Callable[[], TextIO]) -> bool:
    """Whether every line is a row as it stands, no text of it in quotes: then a quote is a character as any other."""
    width = 0
    with open_text() as text:
        for line in text:
            fields = line.rstrip("\r\n").split(delimiter)
            if fields == [""]:
                continue
            width = width or len(fields)
            if len(fields) != width or any(len(one) > 1 and one[0] == one[-1] == '"' for one in fields):
                return False
    return True
