"""Parquet, JSONL and CSV files as streams of polars frames, in memory that does not grow with the file.

Polars scans map a file into memory and run ahead of their reader, so the bytes are read here block by
block: Parquet and CSV by pyarrow, JSONL by polars. Only JSON, one array of objects, is read whole. Compressed text
(.gz, .bz2, .zst) is decompressed on the way.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from shared.errors import DataError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

_FORMATS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_FRAME_BYTES = 4 << 20  # of a frame of Parquet
_FRAME_ROWS = 1 << 16
_ARRAY_ROWS = 4096  # of a frame of JSON
_BLOCK = 1 << 20  # bytes of text parsed at once: a longer line of JSONL is read whole, a longer row of CSV refused


@dataclass(frozen=True, slots=True)
class Table:
    """One file of rows. `format` is parquet, jsonl, json, csv or tsv."""

    path: Path
    format: str
    compression: str | None

    def read_columns(self) -> list[str]:
        """The names of the columns; for JSONL, those of the first block of lines. Raises DataError."""
        import polars as pl
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self.format == "parquet":
                return list(pq.read_schema(self.path).names)
            if self.format in ("jsonl", "json"):
                line, block = next(self._read_blocks(), (1, b""))
                try:
                    return pl.read_ndjson(BytesIO(block), infer_schema_length=None).columns if block else []
                except pl.exceptions.PolarsError as error:
                    raise self._locate(line, block, error) from error
            self._check_quotes()
            return list(self._open_csv(None).schema.names)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._explain(error) from error

    def read_frames(self, columns: list[str], lists: str | None = None) -> Iterator["pl.DataFrame"]:
        """The rows in order, `columns` only, some thousands a frame. JSON and CSV give strings only, lists as JSON.

        The column `lists` may hold lists of strings: it has them as such in each frame in which there are any.

        Raises DataError where the file is broken, naming the line where it can.
        """
        import polars as pl
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self.format == "parquet":
                with pq.ParquetFile(self.path, buffer_size=1 << 16, pre_buffer=False) as file:
                    for batch in file.iter_batches(_count_rows(file), columns=columns, use_threads=False):
                        yield pl.DataFrame(pl.from_arrow(batch))
            elif self.format in ("jsonl", "json"):
                for line, block in self._read_blocks():
                    try:
                        yield _read_lines(block, columns, lists)
                    except pl.exceptions.PolarsError as error:
                        raise self._locate(line, block, error) from error
            else:
                with self._open_csv(columns) as reader:
                    for batch in reader:
                        yield pl.DataFrame(pl.from_arrow(batch))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._explain(error) from error

    def _open(self) -> "pa.NativeFile":
        import pyarrow as pa

        return pa.input_stream(str(self.path), compression=self.compression)

    def _read_blocks(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, about a MiB at once, each block with the number of its first line, counting from 1."""
        if self.format == "json":
            yield from self._read_array()
            return
        line, rest = 1, b""
        with self._open() as file:
            while piece := file.read(_BLOCK):
                whole, newline, tail = piece.rpartition(b"\n")
                if not newline:
                    rest += piece
                    continue
                block = rest + whole + newline
                rest = tail
                yield from _drop_blank(line, block)
                line += block.count(b"\n")
        yield from _drop_blank(line, rest)

    def _read_array(self) -> Iterator[tuple[int, bytes]]:
        """The objects of an array as lines, and each block's first by its number; a file of lines as it is."""
        with self._open() as file:
            content = file.read()
        if not content.lstrip().startswith(b"["):
            yield from _drop_blank(1, content)
            return
        try:
            rows = orjson.loads(content)
        except ValueError as error:
            raise DataError(f"{self.path} is not JSON ({error})") from None
        wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
        if wrong is not None:
            raise DataError(f"{self.path}, row {wrong}: a row is an object, like {{...}}")
        for start in range(0, len(rows), _ARRAY_ROWS):
            yield start + 1, b"\n".join(map(orjson.dumps, rows[start : start + _ARRAY_ROWS]))

    def _open_csv(self, columns: list[str] | None) -> "pa.csv.CSVStreamingReader":
        import pyarrow as pa
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

        return open_csv(
            self._open(),
            # One thread: only then do pyarrow's messages say which row is broken.
            read_options=ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=ParseOptions(delimiter="\t" if self.format == "tsv" else ",", newlines_in_values=True),
            convert_options=ConvertOptions(
                include_columns=columns,
                column_types=None if columns is None else dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )

    def _check_quotes(self) -> None:
        """Raise DataError for a quote that is never closed: all rows after it would be read as one text."""
        with self._open() as file:
            quotes = 0
            while piece := file.read(_BLOCK):
                quotes += piece.count(b'"')
        if quotes % 2 == 0:
            return
        line = 1
        with TextIOWrapper(self._open(), "utf-8", errors="replace", newline="") as text:
            rows = csv.reader(text, delimiter="\t" if self.format == "tsv" else ",", strict=True)
            try:
                for _ in rows:
                    line = rows.line_num + 1
            except csv.Error as error:
                raise DataError(f"{self.path}, line {line}: a quote is not closed ({error})") from error

    def _locate(self, line: int, block: bytes, error: Exception) -> DataError:
        for number, text in enumerate(block.split(b"\n"), line):
            try:
                if text.strip() and not isinstance(json.loads(text), dict):
                    return DataError(f"{self.path}, line {number}: a line of JSONL is an object, like {{...}}")
            except ValueError as wrong:
                return DataError(f"{self.path}, line {number} is not JSON ({wrong})")
        return DataError(f"{self.path}: a line from {line} on is not JSON that polars reads ({error})")

    def _explain(self, error: Exception) -> DataError:
        if "Empty CSV" in str(error):
            return DataError(f"{self.path} is empty")
        if "straddl" in str(error):
            return DataError(f"{self.path} has a row of more than {_BLOCK:,} bytes: is a quote not closed?")
        return DataError(f"{self.path} is broken, or not what its name says: {error}")


def _count_rows(file: "pq.ParquetFile") -> int:
    """How many rows of a Parquet file make a frame: small rows go together, for a frame has a price of its own."""
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    size: int = sum(group.total_byte_size for group in groups)
    rows: int = file.metadata.num_rows
    return max(1, min(_FRAME_ROWS, _FRAME_BYTES * rows // max(size, 1)))


def open_table(path: Path) -> Table:
    """The table that `path` holds, by its name's ending. Raises DataError for another ending."""
    kind, compression = _split_suffixes(path)
    if kind is None:
        raise DataError(
            f"{path}: the name must end in {', '.join(_FORMATS)}; "
            f"{', '.join(_COMPRESSIONS)} may follow, but for Parquet"
        )
    return Table(path, kind, compression)


def is_table(path: Path) -> bool:
    """Whether the name's ending is one that open_table knows."""
    return _split_suffixes(path)[0] is not None


def _split_suffixes(path: Path) -> tuple[str | None, str | None]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    kind = _FORMATS.get("".join(suffixes[-2:-1] if compression else suffixes[-1:]))
    return (None if compression and kind == "parquet" else kind), compression


def name_stem(path: Path) -> str:
    """The file's name without its format and compression: `reviews` for reviews.csv.bz2."""
    name = path.name
    while (suffix := Path(name).suffix.lower()) in _FORMATS or suffix in _COMPRESSIONS:
        name = name[: -len(suffix)]
    return name


def _read_lines(block: bytes, columns: list[str], lists: str | None) -> "pl.DataFrame":
    """Lines of JSON as a frame of strings, and of lists of strings in the column `lists`, where any row has one."""
    import polars as pl

    schema: dict[str, pl.DataType] = dict.fromkeys(columns, pl.String())
    frame = pl.read_ndjson(BytesIO(block), schema=schema)
    if lists is None or not frame[lists].str.starts_with("[").any():
        return frame
    # A string may begin with a bracket too: only the lines themselves tell.
    values = [json.loads(line).get(lists) for line in block.splitlines() if line.strip()]
    if not any(isinstance(value, list) for value in values):
        return frame
    texts = [
        None if value is None else list(map(_spell, value)) if isinstance(value, list) else [_spell(value)]
        for value in values
    ]
    return frame.with_columns(pl.Series(lists, texts, pl.List(pl.String)))


def _spell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _drop_blank(line: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    if block.strip():
        yield line, block
