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
_COUNTED_VALUES = 1000
_GATHERED_LINES = 1000
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
    try:
        separated = Separated(_find_delimiter(header, kind))
    except csv.Error as error:
        raise DataError(f"{path}, line 1: the header cannot be read ({error}); is this a table?") from None
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
    line, width = 1, 0
    with open_text() as text:
        header = text.readline()
        swallowed = _Swallowed(separated.delimiter, header[len(header.rstrip("\r\n")) :] or "\n")
    with open_text() as text:
        try:
            for first, last, row in _read_rows(separated, text):
                line = last + 1
                if not row:
                    continue
                if not width:
                    width = len(row)
                elif len(row) != width:
                    return f"line {first}: {len(row)} values, and the header has {width}"
                else:
                    swallowed.look_at(first, last, row)
        except csv.Error as error:
            return f"line {line}: a quote is not closed, or stands inside a quoted text ({error})"
    return swallowed.find()


@dataclass(frozen=True, slots=True)
class _LongText:
    """A text of several lines, in the row of the lines `first` to `last`, behind `before` other values of `width`."""

    first: int
    last: int
    before: int
    width: int
    lines: list[str]


class _Swallowed:
    """Looks for rows that a stray quote made one text of: every line of it is, or ends or begins, a row of the file.

    A text of two lines may look so by chance, "Story,4" in a file of stars, say. It is one of several lines all the
    same where others in the file surely are: then whoever wrote the file quotes such texts.
    """

    def __init__(self, delimiter: str, line_end: str) -> None:
        self._delimiter, self._line_end = delimiter, line_end
        self._ends: tuple[Counter[str], Counter[str]] = (Counter(), Counter())  # of rows: short values that they have
        self._gathered: list[_LongText] = []
        self._lines = 0
        self._has_others = False
        self._certain: str | None = None
        self._doubtful: str | None = None

    def look_at(self, first: int, last: int, row: list[str]) -> None:
        """Count what the row begins and ends with, and keep its texts of several lines to be looked at."""
        for counter, value in zip(self._ends, (row[0], row[-1]), strict=True):
            if len(value) <= _LONGEST_VALUE and (value in counter or len(counter) < _COUNTED_VALUES):
                counter[value] += 1
        if first == last or self._certain:
            return
        for before, field in enumerate(row):
            if len(lines := field.split(self._line_end)) > 1:
                self._gathered.append(_LongText(first, last, before, len(row), lines))
                self._lines += len(lines)
            elif "\n" in field:  # other line ends than the rows': what a program wrote inside a text
                self._has_others = True
        if self._lines >= _GATHERED_LINES:
            self._judge()

    def find(self) -> str | None:
        """What was swallowed, with its line; None where nothing was."""
        self._judge()
        return self._certain or (None if self._has_others else self._doubtful)

    def _judge(self) -> None:
        for text in self._gathered:
            alike = self._count_alike(text)
            if not alike:
                self._has_others = True
                continue
            problem = (
                f"line {text.first}: a quoted text goes on to line {text.last}, and what it holds looks like rows: "
                f"{text.lines[0][:60]!r}"
            )
            if alike > 1:
                self._certain = self._certain or problem
            else:
                self._doubtful = self._doubtful or problem
        self._gathered, self._lines = [], 0

    def _count_alike(self, text: _LongText) -> int:
        """How many lines of a text end, or else begin, with a value as rows do; 0 unless all do that could."""
        counts = [line.count(self._delimiter) for line in text.lines]
        others = text.width - 1
        if not others or counts != [others - text.before, *[others] * (len(counts) - 2), text.before]:
            return 0
        if any("\n" in line or "\r" in line for line in text.lines):
            return 0
        # The text itself is where the first line ends in a last column, and where the last one begins in a first.
        begins = [line.partition(self._delimiter)[0] for line in text.lines[1 : None if text.before else -1]]
        stops = [line.rpartition(self._delimiter)[2] for line in text.lines[text.before == others : -1]]
        return max(_count_known(values, known) for values, known in zip((begins, stops), self._ends, strict=True))


def _count_known(values: list[str], known: Counter[str]) -> int:
    """How many values there are, if each is among `known`, or among numbers of which hardly one comes twice."""
    if all(value and value in known for value in values):
        return len(values)
    if 2 * len(known) <= known.total() or not all(map(_is_number, [*known, *values])):
        return 0
    numbers = [float(one) for one in known]
    return len(values) if all(min(numbers) <= float(value) <= max(numbers) for value in values) else 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()


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
