"""shared.tasks.tables: formats, compressions, and files that are broken."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from shared.errors import DataError
from shared.tasks.tables import is_table, name_stem, open_table

CSV = b'text,label\n"a, ""b""\nc",1\nd,\n'
JSONL = b'{"text": "a, \\"b\\"\\nc", "label": 1, "more": [1]}\n\n{"text": "d", "label": null}\n'
ROWS = [{"text": 'a, "b"\nc', "label": "1"}, {"text": "d", "label": None}]


def read(path: Path, columns: tuple[str, ...] = ("text", "label")) -> list[dict[str, object]]:
    return [row for frame in open_table(path).read_frames(list(columns)) for row in frame.to_dicts()]


def read_all(path: Path) -> list[dict[str, object]]:
    return read(path, tuple(open_table(path).read_columns()))


def refuse(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_all(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


def compress(content: bytes, ending: str) -> bytes:
    if ending == ".zst":
        return pa.Codec("zstd").compress(content, asbytes=True)  # type: ignore[no-any-return]
    ways: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
    return ways[ending](content)


@pytest.mark.parametrize("compression", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize(("ending", "content"), [(".csv", CSV), (".jsonl", JSONL), (".ndjson", JSONL)])
def test_text_formats(ending: str, content: bytes, compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{ending}{compression}"
    path.write_bytes(compress(content, compression))
    assert open_table(path).read_columns()[:2] == ["text", "label"]
    assert read(path) == ROWS
    assert name_stem(path) == "rows"


def test_tab_separated(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes(b"text\tlabel\na, b\t1\n")
    assert read(tmp_path / "rows.tsv") == [{"text": "a, b", "label": "1"}]


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbftext,label\r\na,1\r\n")
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "a", "label": 1}\r\n')
    assert read(tmp_path / "rows.csv") == read(tmp_path / "rows.jsonl") == [{"text": "a", "label": "1"}]


def test_parquet_keeps_types_and_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"text": ["a"], "label": [True], "more": [[1.0] * 100]}).write_parquet(path)
    assert read(path) == [{"text": "a", "label": True}]


def test_values_of_mixed_types_stay_apart_in_jsonl(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"label": 1}\n{"label": "1a"}\n{"label": true}\n{"label": 0.5}\n{}\n')
    assert [row["label"] for row in read(tmp_path / "rows.jsonl", ("label",))] == ["1", "1a", "true", "0.5", None]


def test_a_line_longer_than_a_block_and_no_line_end_at_the_end(tmp_path: Path) -> None:
    long = "x" * 3_000_000
    (tmp_path / "rows.jsonl").write_text(f'{{"text": "a"}}\n{{"text": "{long}"}}\n{{"text": "b"}}')
    assert [row["text"] for row in read(tmp_path / "rows.jsonl", ("text",))] == ["a", long, "b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a", "lab', "line 40002 is not JSON"),
        (b"[1, 2]", "line 40002: a line of JSONL is an object"),
        (b'{"text": "\xff"}', "line 40002: the byte 0xff is no UTF-8"),
    ],
)
def test_broken_jsonl_names_the_line(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = b'{"text": "some words so that the file has several blocks", "label": 1}\n'
    path.write_bytes(b"\n" + good * 40_000 + line + b"\n" + good)
    assert message in refuse(path)
    path.write_bytes(line)
    assert message.replace("40002", "1") in refuse(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\na,1\nb,1,2\n", "Row #3: Expected 2 columns, got 3"),
        (b"text,label\na,1\nb\n", "Row #3: Expected 2 columns, got 1"),
        (b"text,label\na,1\nb\xff,2\n", "line 3: the byte 0xff is no UTF-8"),
        (b'label,text\n1,"a"\n2,"b\n1,c\n2,d\n', "line 3: a quote is not closed"),
        (b"", "is empty"),
        (b"text\n" + b"x" * 3_000_000 + b"\ny\n", "a row of more than 1,048,576 bytes"),
    ],
)
def test_broken_csv(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert message in refuse(path)


def test_a_lone_quote_inside_a_csv_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b'text,label\na 5" screen,1\n')
    assert open_table(tmp_path / "rows.csv").read_columns() == ["text", "label"]
    assert read(tmp_path / "rows.csv") == [{"text": 'a 5" screen', "label": "1"}]


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"text": ["x"] * 1_000}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:200])
    assert "is broken, or not what its name says" in refuse(path)


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"text": [f"text {i}" for i in range(1_000)], "label": ["a"] * 1_000}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    assert "is broken" in refuse(path)


@pytest.mark.parametrize(("ending", "cut"), [(".csv.gz", 10), (".jsonl.bz2", 10), (".jsonl.zst", 4), (".csv.gz", 0)])
def test_truncated_or_wrong_compression(ending: str, cut: int, tmp_path: Path) -> None:
    path = tmp_path / f"rows{ending}"
    content = compress(CSV if "csv" in ending else JSONL, Path(ending).suffix)
    path.write_bytes(content[:-cut] if cut else CSV)
    assert "is broken" in refuse(path)


def test_an_empty_file_has_no_columns_or_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n \n")
    assert open_table(tmp_path / "rows.jsonl").read_columns() == []
    assert read(tmp_path / "rows.jsonl") == []


def test_names() -> None:
    assert is_table(Path("a/rows.PARQUET"))
    assert not is_table(Path("rows.parquet.gz"))
    assert not is_table(Path("rows"))
    assert name_stem(Path("my.reviews.csv.gz")) == "my.reviews"
    with pytest.raises(DataError, match="must end in"):
        open_table(Path("rows.gz"))


@pytest.mark.parametrize("ending", ["gz", "bz2"])
def test_a_compressed_file_is_inflated_to_a_hundred_times_its_size_at_most(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.disk.LEAST_INFLATED", 1000)
    compress: Callable[[bytes], bytes] = gzip.compress if ending == "gz" else bz2.compress
    (tmp_path / f"bomb.csv.{ending}").write_bytes(compress(b"text\n" + b"a\n" * 1_000_000))
    (tmp_path / f"fine.csv.{ending}").write_bytes(compress(b"text\n" + b"a\n" * 400))
    assert sum(len(frame) for frame in open_table(tmp_path / f"fine.csv.{ending}").read_frames(["text"])) == 400
    with pytest.raises(DataError, match=r"bomb.csv.* is inflated to more than"):
        list(open_table(tmp_path / f"bomb.csv.{ending}").read_frames(["text"]))
