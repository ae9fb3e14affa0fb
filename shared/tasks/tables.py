"""Parquet, JSONL and CSV files as streams of polars frames, in memory that does not grow with the file.

Polars scans map a file into memory and run ahead of their reader, so the bytes are read here block by
block: Parquet and CSV by pyarrow, JSONL by polars. Only JSON, one array of objects, is read whole. Compressed text
(.gz, .bz2, .zst) is decompressed on the way.
"""

import codecs
import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from shared.disk import bound_inflated
from shared.errors import DataError
from shared.tasks.json_lines import dump_json, load_json, load_lines, read_lines
from shared.tasks.separated import Separated, find_separated

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
# The marks at the beginning of a text that say how it is encoded; the longer ones first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NULL = r"\N"  # as MySQL and PostgreSQL write it
_BLOCK = 1 << 20  # bytes of text parsed at once: a longer line of JSONL is read whole, a longer row of CSV refused


@dataclass(frozen=True, slots=True)
class Table:
    """One file of rows. `format` is parquet, jsonl, json, csv or tsv."""

    path: Path
    format: str
    compression: str | None

    def read_columns(self, wanted: Sequence[str] = ()) -> list[str]:
        """The names of the columns; for JSONL, those of so many blocks of lines as have the `wanted` ones.

        Raises DataError where the file cannot be read as text, or two columns have the name of a `wanted` one.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self.format == "parquet":
                return self._require_one(wanted, list(pq.read_schema(self.path).names))
            if self.format in ("jsonl", "json"):
                self._check_text()
                return self._list_keys(wanted)
            self._find_separated()
            return self._require_one(wanted, list(self._open_csv(None).schema.names))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._explain(error) from error

    def read_class_names(self, column: str) -> list[str] | None:
        """The names that `datasets` wrote for the numbers of a column of classes; None where it wrote none."""
        import pyarrow.parquet as pq

        if self.format != "parquet":
            return None
        try:
            written = json.loads((pq.read_schema(self.path).metadata or {})[b"huggingface"])
            feature = written["info"]["features"][column]
            feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)  # several a row
            names = feature["names"] if feature["_type"] == "ClassLabel" else None
        except (KeyError, TypeError, ValueError):
            return None
        return [str(name) for name in names] if isinstance(names, list) else None

    def _list_keys(self, wanted: Sequence[str]) -> list[str]:
        import polars as pl

        keys: dict[str, None] = {}
        for line, block in self._read_blocks():
            try:
                keys |= dict.fromkeys(pl.read_ndjson(BytesIO(block), infer_schema_length=None).columns)
            except pl.exceptions.PolarsError as error:
                try:
                    keys |= dict.fromkeys(key for row in load_lines(block) for key in row)
                except ValueError:
                    raise self._locate(line, block, error) from error
            if keys.keys() >= set(wanted):
                break
        return list(keys)

    def _require_one(self, wanted: Sequence[str], names: list[str]) -> list[str]:
        if (twice := next((name for name in wanted if names.count(name) > 1), None)) is not None:
            raise DataError(f"{self.path} has two columns of the name {twice!r}: give one of them another name")
        return names

    def read_frames(
        self, columns: list[str], lists: str | None = None, texts: Sequence[str] = ()
    ) -> Iterator["pl.DataFrame"]:
        """The rows in order, `columns` only, some thousands a frame. JSON and CSV give strings only, lists as JSON.

        The column `lists` may hold lists of strings: it has them as such in each frame in which there are any. Those of
        `texts` hold no objects and no lists in JSON.

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
                        frame = read_lines(block, columns, lists)
                    except ValueError as error:
                        raise self._locate(line, block, error) from error
                    self._check_nested(line, block, frame, texts)
                    yield frame
            else:
                with self._open_csv(columns) as reader:
                    for batch in reader:
                        yield pl.DataFrame(pl.from_arrow(batch))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._explain(error) from error

    def _open(self) -> "pa.NativeFile":
        import pyarrow as pa

        with pa.input_stream(str(self.path), compression=self.compression) as beginning:
            mark = beginning.read(4)
        stream = pa.input_stream(str(self.path), compression=self.compression)
        if self.compression is not None:
            stream = pa.PythonFile(_Inflated(stream, self.path, bound_inflated(self.path.stat().st_size)), "r")
        encoding = next((name for marks, name in _MARKS if mark.startswith(marks)), None)
        return stream if encoding is None else pa.transcoding_input_stream(stream, encoding, "utf-8")

    def _read_blocks(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, about a MiB at once, each block with the number of its first line, counting from 1."""
        if self.format == "json" or self._is_array():
            yield from self._read_array()
            return
        line = 1
        for block in self._read_lines():
            if block.strip():
                yield line, block
            line += block.count(b"\n")

    def _read_lines(self) -> Iterator[bytes]:
        """All of the file's text, whole lines at once."""
        rest = b""
        with self._open() as file:
            while piece := file.read(_BLOCK):
                whole, newline, tail = piece.rpartition(b"\n")
                if not newline:
                    rest += piece
                    continue
                yield rest + whole + newline
                rest = tail
        yield rest

    def _check_nested(self, line: int, block: bytes, frame: "pl.DataFrame", texts: Sequence[str]) -> None:
        """Raise DataError for an object or a list in a column of texts: only the lines tell it from a text of JSON."""
        import polars as pl

        strings = [name for name in texts if frame.schema[name] == pl.String]
        doubtful = [name for name in strings if frame[name].str.contains(r"^[{\[]").any()]
        for offset, text in enumerate(block.split(b"\n") if doubtful else ()):
            row = load_json(text) if text.strip() else {}
            if (name := next((one for one in doubtful if isinstance(row.get(one), dict | list)), None)) is not None:
                place = f"row {line + offset - 1}" if self._is_array() else f"line {line + offset}"
                raise DataError(
                    f"{self.path}, {place}: the text is an object or a list, not a text (in the column {name!r})"
                )

    def _is_array(self) -> bool:
        """Whether a file of JSONL is an array of objects all the same."""
        with self._open() as file:
            beginning = file.read(_BLOCK).lstrip()
        return bool(beginning.startswith(b"[") and beginning[1:].lstrip()[:1] in (b"{", b"]"))

    def _read_array(self) -> Iterator[tuple[int, bytes]]:
        """The objects of an array as lines, and each block's first by its number; a file of lines as it is."""
        with self._open() as file:
            content = file.read()
        if not content.lstrip().startswith(b"["):
            if content.strip():
                yield 1, content
            return
        try:
            rows = load_json(content)
        except ValueError as error:
            raise DataError(f"{self.path} is not JSON ({error})") from None
        wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
        if wrong is not None:
            raise DataError(f"{self.path}, row {wrong}: a row is an object, like {{...}}")
        for start in range(0, len(rows), _ARRAY_ROWS):
            yield start + 1, b"\n".join(map(dump_json, rows[start : start + _ARRAY_ROWS]))

    def _open_csv(self, columns: list[str] | None) -> "pa.csv.CSVStreamingReader":
        import pyarrow as pa
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

        separated = self._find_separated()
        return open_csv(
            pa.PythonFile(_Nulls(self._read_lines(), separated.delimiter), "r") if separated.escaped else self._open(),
            # One thread: only then do pyarrow's messages say which row is broken.
            read_options=ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=ParseOptions(
                delimiter=separated.delimiter,
                quote_char='"' if separated.quoted else False,
                double_quote=separated.quoted and not separated.escaped,
                escape_char="\\" if separated.escaped else False,
                newlines_in_values=separated.quoted,
            ),
            convert_options=ConvertOptions(
                include_columns=columns,
                column_types=None if columns is None else dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                null_values=["", _NULL],
            ),
        )

    def _find_separated(self) -> Separated:
        status = self.path.stat()
        return _find_separated(self, status.st_mtime_ns, status.st_size)

    def _open_text(self) -> TextIOWrapper:
        return TextIOWrapper(self._open(), "utf-8", newline="")

    def _check_text(self) -> bool:
        """Say whether any quote stands in the file. Raises DataError for bytes that are no UTF-8, and for NUL."""
        decoder = getincrementaldecoder("utf-8")()
        line, has_quotes, piece = 1, False, b"beginning"
        with self._open() as file:
            while piece:
                try:
                    piece = file.read(_BLOCK)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}, after line {line - 1}: this is no {error.encoding}, as its first bytes say, or "
                        f"it was cut in the middle of a character ({error.reason})"
                    ) from None
                has_quotes = has_quotes or b'"' in piece
                if (at := piece.find(b"\0")) >= 0:
                    line += piece[:at].count(b"\n")
                    raise DataError(
                        f"{self.path}, line {line}: a NUL byte, so this is no text, or UTF-16 without its mark: "
                        "iconv -f utf-16le -t utf-8 makes UTF-8 of it"
                    )
                try:
                    decoder.decode(piece, final=not piece)
                except UnicodeDecodeError as error:
                    line += piece[: max(0, error.start)].count(b"\n")
                    raise DataError(
                        f"{self.path}, line {line}: the byte 0x{error.object[error.start]:02x} is no UTF-8. Files of "
                        "Windows are often in its code page: iconv -f cp1252 -t utf-8 makes UTF-8 of them. Where it "
                        "is the last line, the file may have been cut in the middle of a character"
                    ) from None
                line += piece.count(b"\n")
        return has_quotes

    def _locate(self, line: int, block: bytes, error: Exception) -> DataError:
        for number, text in enumerate(block.split(b"\n"), line):
            try:
                if text.strip() and not isinstance(json.loads(text), dict):
                    return DataError(f"{self.path}, line {number}: a line of JSONL is an object, like {{...}}")
            except (ValueError, RecursionError) as wrong:
                return DataError(f"{self.path}, line {number} is not JSON ({wrong})")
        return DataError(f"{self.path}: a line from {line} on is not JSON that can be read ({error})")

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


class _Inflated(RawIOBase):
    """A compressed file as it is inflated, which raises DataError before it has become more than `most` bytes."""

    def __init__(self, opened: "pa.NativeFile", path: Path, most: int) -> None:
        self._opened, self._path, self._left, self._most = opened, path, most, most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._opened.read(self._left + 1 if size is None or size < 0 else min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise DataError(
                f"{self._path} is inflated to more than {self._most:,} bytes, a hundred times its size: it was made to "
                "fill a memory, or is damaged. Decompress it yourself and name the plain file, if it is what you want"
            )
        return content

    def close(self) -> None:
        self._opened.close()
        super().close()


class _Nulls(RawIOBase):
    """Text whose backslashes are escapes as a file in which _NULL keeps its own: else it is read as an N."""

    def __init__(self, blocks: Iterator[bytes], delimiter: str) -> None:
        mark = re.escape(delimiter.encode())
        self._bare = re.compile(rb"(?m)(?:^|(?<=%b))(\\N)(?=%b|\r?$)" % (mark, mark))
        self._blocks, self._rest = blocks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while (size < 0 or len(self._rest) < size) and (block := next(self._blocks, b"")):
            self._rest += self._bare.sub(rb"\\\1", block)
        content = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(content) :]
        return content


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


@lru_cache(maxsize=256)
def _find_separated(table: Table, changed_at: int, size: int) -> Separated:
    return find_separated(table.path, table.format, table._check_text(), table._open_text)
