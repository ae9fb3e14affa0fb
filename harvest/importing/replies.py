"""Files of replies: read once, row by row, into a scratch file, and given from there in the order of the task."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from harvest.chat.imported import ReplyReader
from harvest.importing.layouts import CUSTOM_ID, FileLayout
from harvest.importing.match import NOWHERE, Ints
from harvest.importing.records import Record, decode, find_texts, hash_prompt, make_record
from shared.console import track
from shared.errors import DataError
from shared.schema import Answer, Status
from shared.tasks.tables import open_table

if TYPE_CHECKING:
    import polars as pl

_NOTHING, _RAW, _PROBLEM = b"\0", b"\1", b"\2"  # the first byte of a record on disk
_SAMPLES = 100  # replies that show whether a file has log-probabilities: one of a few may be a refusal
_ROW_BYTES = 1 << 12  # about those of a row as it is kept


@dataclass(frozen=True, slots=True)
class Replies:
    """The records of a file, on disk, and what reads them. `ends` are where each one ends there."""

    path: Path
    ends: "array[int]"
    reader: ReplyReader
    row_bytes: int = _ROW_BYTES

    def read(self, numbers: Ints) -> list[Answer]:
        """Give the answers of rows by their numbers: unasked, where a number is NOWHERE or the row says nothing."""
        with self.path.open("rb") as file:
            return [self._read(file, number) for number in numbers.tolist()]

    def _read(self, file: BinaryIO, number: int) -> Answer:
        record = Record() if number == NOWHERE else read_record(file, self.ends, number)
        if record.raw is not None:
            return replace(self.reader.read(record.raw), cost_usd=None)
        if record.problem is not None:
            return Answer(Status.FAILED, error=record.problem, cost_usd=None)
        return Answer(Status.UNASKED)


def read_record(file: BinaryIO, ends: "array[int]", number: int) -> Record:
    """Read a record from its scratch file."""
    start = ends[number - 1] if number else 0
    file.seek(start)
    kind, content = file.read(1), file.read(ends[number] - start - 1)
    if kind == _RAW:
        return Record(content)
    return Record(problem=content.decode()) if kind == _PROBLEM else Record()


@dataclass(slots=True)
class Spilled:
    """What a file came to: its records on disk, where each ends, and what its rows are matched by."""

    path: Path
    ends: "array[int]"
    ids: "pl.Series | None" = None
    texts: list[list[int]] | None = None
    samples: list[bytes] = field(default_factory=list)  # the first replies

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return len(self.ends)


def spill_replies(path: Path, layout: FileLayout, scratch: Path) -> Spilled:
    """Read a file of replies. Raises DataError naming the row where one is no answer at all."""
    import polars as pl

    spilled = Spilled(scratch, array("q"), texts=[] if layout.texts else None)
    ids: list[pl.Series] = []
    end = 0
    with scratch.open("wb") as file, track(f"reading {path.name}", path.stat().st_size >> 20) as tracker:
        for frame in open_table(path).read_frames(layout.columns):
            if layout.ids is not None:
                ids.append(frame[layout.ids].cast(pl.String))
            for row in frame.iter_rows(named=True):
                record = _make(path, spilled.rows, row, layout)
                end += _write(file, record)
                spilled.ends.append(end)
                if record.raw is not None and len(spilled.samples) < _SAMPLES:
                    spilled.samples.append(record.raw)
                if spilled.texts is not None:
                    spilled.texts.append(find_texts(row, layout.texts))
            tracker.advance(0, f"{spilled.rows:,} rows")
    if not spilled.rows:
        raise DataError(f"{path} has no rows")
    if layout.ids is not None:
        spilled.ids = pl.concat(ids)
    return spilled


def _make(path: Path, number: int, row: Mapping[str, Any], layout: FileLayout) -> Record:
    try:
        return make_record(row, layout)
    except DataError as error:
        raise DataError(f"{path}, row {number}: {error}") from None


def _write(file: BinaryIO, record: Record) -> int:
    if record.raw is not None:
        return file.write(_RAW + record.raw)
    return file.write(_NOTHING if record.problem is None else _PROBLEM + record.problem.encode("utf-8", "replace"))


def read_batch_input(path: Path, ids: "pl.Series") -> list[list[int]]:
    """Hash what each request of an OpenAI batch asked, by its custom_id in the batch's input file."""
    table = open_table(path)
    columns = table.read_columns((CUSTOM_ID, "body"))
    if not {CUSTOM_ID, "body"} <= set(columns):
        raise DataError(f"{path} is no input of an OpenAI batch: it has {', '.join(columns)}, not custom_id and body")
    asked: dict[str, list[int]] = {}
    for frame in table.read_frames([CUSTOM_ID, "body"]):
        for name, value in frame.iter_rows():
            body = decode(value)
            said = body.get("messages", body.get("input")) if isinstance(body, dict) else None
            asked[str(name)] = hash_prompt(said)
    return [asked.get(name, []) for name in ids.to_list()]
