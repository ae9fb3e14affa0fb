"""Files as people and programs write them: each is read right, or refused in words that name the mend."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import DataError, SourceError
from shared.tasks import LoadedTask, find_task, load_task
from shared.tasks.counts import SplitCount
from shared.tasks.tables import open_table

Rows = list[tuple[str, str | None]]
PLAIN: Rows = [("a good film", "pos"), ("a bad film", "neg"), ("fine, really", "pos"), ("dull", "neg")]
LINES = 'text,label\na good film,pos\na bad film,neg\n"fine, really",pos\ndull,neg\n'
SPLITS = ("train", "validation", "test")


def load(path: Path, **options: Any) -> LoadedTask:
    defaults = {"text_column": "text", "label_column": "label"}
    return load_task(find_task(str(path), **{**defaults, **options}))


def read(loaded: LoadedTask) -> Rows:
    """All rows of a task, by number."""
    names = loaded.task.labels
    found = [
        (
            int(example.sample_id.rpartition("-")[2]),
            example.text,
            None if example.label is None else names[example.label],
        )
        for split in loaded.splits
        for example in loaded.examples(split)
    ]
    return [(text, label) for _, text, label in sorted(found)]


def as_json(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


READ: dict[str, tuple[str, bytes, Rows]] = {
    "as RFC 4180 says": ("csv", LINES.encode(), PLAIN),
    "Windows line ends": ("csv", LINES.replace("\n", "\r\n").encode(), PLAIN),
    "no line end at the end": ("csv", LINES.rstrip("\n").encode(), PLAIN),
    "blank lines at the end": ("csv", (LINES + "\n\n").encode(), PLAIN),
    "UTF-8 with a mark": ("csv", LINES.encode("utf-8-sig"), PLAIN),
    "UTF-16, as Excel's Unicode text": ("csv", LINES.encode("utf-16"), PLAIN),
    "UTF-16 big end first": ("csv", b"\xfe\xff" + LINES.encode("utf-16-be"), PLAIN),
    "UTF-32": ("csv", LINES.encode("utf-32"), PLAIN),
    "tabs in a .csv": ("csv", b"text\tlabel\na, b\tx\nc\ty\n", [("a, b", "x"), ("c", "y")]),
    "commas in a .tsv": ("tsv", b'text,label\n"a, b",x\nc,y\n', [("a, b", "x"), ("c", "y")]),
    "semicolons": ("csv", b"text;label\na, b;x\nc;y\n", [("a, b", "x"), ("c", "y")]),
    "semicolons and quotes": ("csv", b'text;label\n"a; b";x\nc;y\n', [("a; b", "x"), ("c", "y")]),
    "bars": ("csv", b"text|label\na, b|x\nc|y\n", [("a, b", "x"), ("c", "y")]),
    "a semicolon in a name": ("csv", b"text,label,a;b\na;1,x,1\nc;2,y,2\n", [("a;1", "x"), ("c;2", "y")]),
    "the label first": ("csv", b"label,text\nx,a\ny,b\n", [("a", "x"), ("b", "y")]),
    "a doubled quote": ("csv", b'text,label\n"a ""b"" c",x\nd,y\n', [('a "b" c', "x"), ("d", "y")]),
    "a text of several lines": ("csv", b'text,label\n"a\nb, c",x\nd,y\n', [("a\nb, c", "x"), ("d", "y")]),
    "many texts of several lines": (
        "csv",
        b"text,label\n" + b"".join(b'"one, two\nthree, four %d",x\n"five\n\nsix",y\n' % i for i in range(5)),
        [row for i in range(5) for row in ((f"one, two\nthree, four {i}", "x"), ("five\n\nsix", "y"))],
    ),
    "texts whose lines look like rows of stars": (
        "csv",
        b'text,label\n"Paid $1,500\nBut good",5\n"Overall,4\nGood, really\nThanks, John",4\nfine,1\nok,5\nno,4\n',
        [
            ("Paid $1,500\nBut good", "5"),
            ("Overall,4\nGood, really\nThanks, John", "4"),
            ("fine", "1"),
            ("ok", "5"),
            ("no", "4"),
        ],
    ),
    "lines of a text that end otherwise than rows do": (
        "csv",
        b'text,label\r\n"one,pos\ntwo,neg\nthree",pos\r\nfour,neg\r\n',
        [("one,pos\ntwo,neg\nthree", "pos"), ("four", "neg")],
    ),
    "columns without a name": ("csv", b"text,label,,\na,x,,\nb,y,,\n", [("a", "x"), ("b", "y")]),
    "NULL of MySQL": (
        "csv",
        b'text,label,other\na \\"b\\",x,\\N\n"c, \\"d\\"",\\N,\\N\nNN,y,\\N\n',
        [('a "b"', "x"), ('c, "d"', None), ("NN", "y")],
    ),
    "NULL of PostgreSQL": ("tsv", b"text\tlabel\na\tx\nb\ty\nc\t\\N\n", [("a", "x"), ("b", "y"), ("c", None)]),
    "all in quotes": ("csv", b'"text","label"\n"a","x"\n"b","y"\n', [("a", "x"), ("b", "y")]),
    "a quote inside a text": ("csv", b'text,label\na 5" screen,x\nb,y\n', [('a 5" screen', "x"), ("b", "y")]),
    "stray quotes that would swallow rows": (
        "csv",
        b'text,label\n"great movie,pos\nbad,neg\nfine,pos\nthe end",neg\nlast,pos\n',
        [('"great movie', "pos"), ("bad", "neg"), ("fine", "pos"), ('the end"', "neg"), ("last", "pos")],
    ),
    "a quoted word first": (
        "csv",
        b'text,label\n"great" movie,pos\nbad,neg\n',
        [('"great" movie', "pos"), ("bad", "neg")],
    ),
    "a quote that is never closed": ("csv", b'text,label\n"a,x\nb,y\n', [('"a', "x"), ("b", "y")]),
    "a TSV without quoting": (
        "tsv",
        b'text\tlabel\n"a\tx\nb "c" d\ty\n" e\tx\n',
        [('"a', "x"), ('b "c" d', "y"), ('" e', "x")],
    ),
    "a TSV with quoting": ("tsv", b'text\tlabel\n"a\tb"\tx\nc\ty\n', [("a\tb", "x"), ("c", "y")]),
    "escaped quotes": ("csv", b'text,label\n"a \\"b, c\\" d",x\ne,y\n', [('a "b, c" d', "x"), ("e", "y")]),
    "a backslash that escapes nothing": ("csv", b"text,label\na \\n b,x\nc,y\n", [("a \\n b", "x"), ("c", "y")]),
    "labels that pandas wrote": ("csv", b"text,label\na,1.0\nb,0.0\nc,\n", [("a", "1"), ("b", "0"), ("c", None)]),
    "NaN for no label": ("csv", b"text,label\na,x\nb,y\nc,NaN\n", [("a", "x"), ("b", "y"), ("c", None)]),
    "blanks around labels": (
        "csv",
        b"text,label\na,x \nb, y\nc,x\nd,  \n",
        [("a", "x"), ("b", "y"), ("c", "x"), ("d", None)],
    ),
    "-1 as a label among others": ("csv", b"text,label\na,-1\nb,0\nc,1\n", [("a", "-1"), ("b", "0"), ("c", "1")]),
    "true and false": ("csv", b"text,label\na,true\nb,false\n", [("a", "true"), ("b", "false")]),
    "numbers as texts": ("csv", b"text,label\n007,x\n1.50,y\n", [("007", "x"), ("1.50", "y")]),
    "null as a text": ("csv", b"text,label\nnull,x\nNA,y\n", [("null", "x"), ("NA", "y")]),
    "further columns": ("csv", b"id,text,x,label\n1,a,,p\n2,b,,q\n", [("a", "p"), ("b", "q")]),
    "other scripts": ("csv", "text,label\nплохо,нет\n好,да\n".encode(), [("плохо", "нет"), ("好", "да")]),
    "JSONL with a mark": (
        "jsonl",
        b"\xef\xbb\xbf" + as_json({"text": "a", "label": "x"}, {"text": "b", "label": "y"}).encode(),
        [("a", "x"), ("b", "y")],
    ),
    "JSONL in UTF-16": (
        "jsonl",
        as_json({"text": "a", "label": "x"}, {"text": "b", "label": "y"}).encode("utf-16"),
        [("a", "x"), ("b", "y")],
    ),
    "an array in a .jsonl": (
        "jsonl",
        json.dumps([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], indent=1).encode(),
        [("a", "x"), ("b", "y")],
    ),
    "an array with NaN": (
        "json",
        json.dumps(
            [{"text": "a", "label": 1.0}, {"text": "b", "label": 0.0}, {"text": "c", "label": math.nan}]
        ).encode(),
        [("a", "1"), ("b", "0"), ("c", None)],
    ),
    "lines in a .json": (
        "json",
        as_json({"text": "a", "label": "x"}, {"text": "b", "label": "y"}).encode(),
        [("a", "x"), ("b", "y")],
    ),
    "NaN in JSONL": (
        "jsonl",
        as_json({"text": "a", "label": 1.0}, {"text": "b", "label": 0.0}, {"text": "c", "label": math.nan}).encode(),
        [("a", "1"), ("b", "0"), ("c", None)],
    ),
    "a key that comes late": (
        "jsonl",
        as_json(
            *({"text": f"text {i} " + "x" * 1000} for i in range(1500)),
            {"text": "a", "label": "x"},
            {"text": "b", "label": "y"},
        ).encode(),
        [*((f"text {i} " + "x" * 1000, None) for i in range(1500)), ("a", "x"), ("b", "y")],
    ),
    "blank lines in JSONL": (
        "jsonl",
        b'\n{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}\n\n',
        [("a", "x"), ("b", "y")],
    ),
    "numbers as texts in JSONL": (
        "jsonl",
        as_json({"text": 7, "label": 1}, {"text": 1.5, "label": 0}).encode(),
        [("7", "1"), ("1.5", "0")],
    ),
    "texts that are JSON": (
        "jsonl",
        as_json({"text": '{"a": 1}', "label": "x"}, {"text": '["b"]', "label": "y"}).encode(),
        [('{"a": 1}', "x"), ('["b"]', "y")],
    ),
    "a cut emoji": (
        "jsonl",
        rb'{"text": "a \ud83d", "label": "x"}' + b"\n" + rb'{"text": "b \ud83d\ude00", "label": "y"}',
        [("a \ufffd", "x"), ("b \U0001f600", "y")],
    ),
    "a cut emoji in an array": (
        "json",
        rb'[{"text": "a \udc00", "label": "x"}, {"text": "b", "label": "y"}]',
        [("a \ufffd", "x"), ("b", "y")],
    ),
    "numbers of more than 64 bits": (
        "json",
        b'[{"text": 99999999999999999999999, "label": "x"}, {"text": "b", "label": "y"}, {"text": "c", "label": NaN}]',
        [("99999999999999999999999", "x"), ("b", "y"), ("c", None)],
    ),
    "a line separator in a text": (
        "jsonl",
        as_json({"text": "a\u2028b", "label": "x"}, {"text": "c", "label": "y"}).encode(),
        [("a\u2028b", "x"), ("c", "y")],
    ),
}

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "Windows-1252": (
        "csv",
        "text,label\ngut,x\nschön,y\n".encode("cp1252"),
        "line 3: the byte 0xf6 is no UTF-8.*iconv -f cp1252",
    ),
    "Windows-1252 in JSONL": (
        "jsonl",
        b'{"text": "a", "label": "x"}\n{"text": "sch\xf6n", "label": "y"}\n',
        "line 2: the byte 0xf6.*iconv",
    ),
    "UTF-16 without a mark": ("csv", LINES.encode("utf-16-le"), "line 1: a NUL byte.*iconv -f utf-16le"),
    "quotes in quotes": ("csv", b'text,label\n"a, b",x\n"c "d, e" f",y\n', r"line 3: .*written twice \(\"\"\)"),
    "a quote that swallows rows among quoted texts": (
        "csv",
        b'text,label\n"a, b",pos\n"great movie,pos\nbad,neg\nthe end",neg\nlast,pos\nx,neg\n',
        "line 3: a quoted text goes on to line 5, and what it holds looks like rows: 'great movie,pos'",
    ),
    "a quote that swallows numbers": (
        "csv",
        b'text,label\n"a, b",1.5\n"great movie,2.5\nbad,3.5\nthe end",4.5\nlast,5.5\n',
        "line 3: a quoted text goes on to line 5",
    ),
    "a quote that swallows rows behind many texts of several lines": (
        "csv",
        b"text,label\n"
        + b'"one\ntwo",pos\n"three\nfour",neg\n' * 600
        + b'"great,pos\nbad,neg\nthe end",neg\nlast,pos\n',
        "line 2402: a quoted text goes on to line 2404",
    ),
    "UTF-8 that is cut in a character": ("csv", LINES.encode() + b"caf\xc3", "line 6: the byte 0xc3 is no UTF-8"),
    "UTF-8 that is cut in a character, in JSONL": (
        "jsonl",
        b'{"text": "a", "label": "x"}\n{"text": "caf\xc3',
        "line 2: the byte 0xc3 is no UTF-8",
    ),
    "UTF-16 that is cut in a character": ("csv", LINES.encode("utf-16") + b"a", "is no utf-16.*or it was cut"),
    "a header of megabytes": ("csv", b"text,label," + b"x" * (17 << 20) + b"\na,x,y\n", "line 1: the header cannot"),
    "a quote that is never closed, among others": (
        "csv",
        b'text,label\n"a, b",x\n"c,y\nd,x\n',
        "line 3: .*written twice|line 3: a quote is not closed",
    ),
    "two columns of one name": ("csv", b"text,label,text\na,x,b\nc,y,d\n", "two columns of the name 'text'"),
    "a row too long": ("csv", b"text,label\na,x\nb, c,y\n", "Expected 2 columns, got 3"),
    "a row too short": ("csv", b"text,label\na,x\nb\n", "Expected 2 columns, got 1"),
    "no such column": ("csv", b"review,label\na,x\nb,y\n", "has no column 'text'; it has: review, label"),
    "a column with blanks around it": ("csv", b" text,label\na,x\nb,y\n", "' text' has blanks around it"),
    "an empty file": ("csv", b"", "is empty"),
    "an empty JSONL": ("jsonl", b"", "is empty"),
    "a header only": ("csv", b"text,label\n", "has no rows"),
    "an empty text": ("csv", b"text,label\na,x\n,y\n", "row 1: the text is empty"),
    "a text of blanks": ("csv", b"text,label\na,x\n   ,y\n", "row 1: the text is empty"),
    "one label only": ("csv", b"text,label\na,x\nb,x\n", "all rows have the same label"),
    "no JSON": ("jsonl", b'{"text": "a", "label": "x"}\n{"text": \n', "line 2 is not JSON"),
    "a line that is no object": (
        "jsonl",
        b'{"text": "a", "label": "x"}\n["b", "y"]\n',
        "line 2: a line of JSONL is an object",
    ),
    "an array of texts": ("json", b'["a", "b"]', "row 0: a row is an object"),
    "texts that are objects": (
        "jsonl",
        as_json({"text": {"en": "a"}, "label": "x"}, {"text": {"en": "b"}, "label": "y"}).encode(),
        "line 1: the text is an object or a list",
    ),
    "a text that is a list": (
        "jsonl",
        as_json({"text": '["a"]', "label": "x"}, {"text": ["b", "c"], "label": "y"}).encode(),
        "line 2: the text is an object or a list",
    ),
    "a text that is a list, in an array": (
        "json",
        json.dumps([{"text": "a", "label": "x"}, {"text": ["b"], "label": "y"}]).encode(),
        "row 1: the text is an object or a list",
    ),
    "a workbook": ("xlsx", b"PK\x03\x04", "the name must end in"),
    "no gzip": ("csv.gz", LINES.encode(), "broken, or not what its name says"),
    "no Parquet": ("parquet", LINES.encode(), "broken, or not what its name says"),
}


@pytest.mark.parametrize("name", READ)
def test_read_right(name: str, tmp_path: Path) -> None:
    ending, content, rows = READ[name]
    path = tmp_path / f"films.{ending}"
    path.write_bytes(content)
    assert read(load(path)) == rows


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_file_and_mend(name: str, tmp_path: Path) -> None:
    ending, content, message = REFUSED[name]
    path = tmp_path / f"films.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){message}") as raised:
        load(path)
    assert "films" in str(raised.value) or "all rows" in str(raised.value)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    for options in ({}, {"text_column": None, "label_column": None}):
        with pytest.raises(SourceError, match=r"there is no file .*filsm\.csv"):
            load(tmp_path / "filsm.csv", **options)


def write_splits(folder: Path, **splits: Rows) -> Path:
    folder.mkdir(parents=True)
    for name, rows in splits.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return folder


def test_counts_a_class_and_texts_in_two_splits_are_said(tmp_path: Path) -> None:
    folder = write_splits(tmp_path / "films", train=[*PLAIN, ("x", None)], validation=[("y", "pos")], test=[PLAIN[0]])
    notes = load(folder).notes
    assert "train: neg 2, pos 2; 1 without a label" in notes
    assert "validation: pos 1" in notes
    assert "test: 1 of 1 texts stand in train too: a student has seen them" in notes
    assert not any(note.startswith("validation: 1 of") for note in notes)


def test_a_test_split_whose_labels_are_hidden(tmp_path: Path) -> None:
    numbered: Rows = [("a", "0"), ("b", "1"), ("c", "1")]
    folder = write_splits(tmp_path / "films", train=numbered, validation=[("d", "0")], test=[("e", "-1"), ("f", "-1")])
    for options in ({}, {"labels": ["0", "1"]}):
        loaded = load(folder, **options)
        assert loaded.task.labels == ("0", "1")
        assert [example.label for example in loaded.examples("test")] == [None, None]
        assert "test: 2 without a label" in loaded.notes
    write_splits(tmp_path / "wrong", train=numbered, validation=[("d", "7")], test=[("e", "-1")])
    with pytest.raises(DataError, match="'7'"):
        load(tmp_path / "wrong", labels=["0", "1"])


def test_a_rare_label_that_chance_brings_into_one_split_is_a_label(tmp_path: Path) -> None:
    rows: Rows = [(f"text {i}", "-1" if i == 2 else str(i % 2)) for i in range(12)]
    path = write_splits(tmp_path / "films", train=rows) / "train.csv"
    loaded = load(path)
    alone = [split for split in loaded.splits if any(example.label == 0 for example in loaded.examples(split))]
    assert (loaded.task.labels, len(alone)) == (("-1", "0", "1"), 1)
    assert loaded.splits[alone[0]] == 1  # it is all that the split has
    write_splits(tmp_path / "tested", train=rows, test=[("z", "0")])
    assert load(tmp_path / "tested").task.labels == ("-1", "0", "1")
    write_splits(tmp_path / "hidden", train=[row for row in rows if row[1] != "-1"], test=[("z", "-1")])
    assert load(tmp_path / "hidden").task.labels == ("0", "1")


def test_values_of_a_regression_are_no_classes(tmp_path: Path) -> None:
    folder = write_splits(tmp_path / "films", train=[("a", "1.5"), ("b", "2.5")], test=[("A!", "3"), ("c", "1")])
    notes = load(folder, label_column=None, target_column="label").notes
    assert [note for note in notes if not note.startswith("cut by")] == [
        "test: 1 of 2 texts stand in train too: a student has seen them"
    ]


def test_only_classes_are_counted() -> None:
    frame = pl.DataFrame({"text": ["a", "A!", "😀"], "value": ["1.5", "2.5", None]})
    classes, numbers = SplitCount(), SplitCount()
    classes.add(frame, has_classes=True)
    numbers.add(frame, has_classes=False)
    assert (len(classes.values), len(numbers.values)) == (3, 0)
    assert len(numbers.texts) == 2


def test_labels_of_an_older_version_are_had_by_name(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("text,label\na,0.0\nb,1.0\nc,\n")
    assert load(tmp_path / "films.csv").task.labels == ("0", "1")
    loaded = load(tmp_path / "films.csv", labels=["0.0", "1.0"])
    assert sorted(read(loaded)) == [("a", "0.0"), ("b", "1.0"), ("c", None)]
    assert loaded.task.question == "Which label fits this text? Answer 0.0 or 1.0."


def test_conversations_may_be_written_as_text(tmp_path: Path) -> None:
    said = [{"role": "user", "content": '["a"]'}, {"role": "assistant", "content": "b"}]
    (tmp_path / "said.jsonl").write_text(as_json({"messages": said}, {"messages": json.dumps(said)}))
    loaded = load(tmp_path / "said.jsonl", text_column=None, label_column=None, messages_column="messages")
    assert {example.text for split in loaded.splits for example in loaded.examples(split)} == {'["a"]'}


def test_a_data_folder_of_the_hub_with_class_names(tmp_path: Path) -> None:
    folder = tmp_path / "films" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "films" / "README.md").write_text("a card\n")
    features = {
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, None]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    for split in SPLITS:
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    loaded = load(tmp_path / "films")
    assert loaded.task.labels == ("neg", "pos")
    assert [example.label for example in loaded.examples("train")] == [1, 0, None]
    assert "train: neg 1, pos 1; 1 without a label" in loaded.notes
    by_number = load(tmp_path / "films", labels=["0", "1"])  # as older versions took them
    assert by_number.task.labels == ("0", "1")
    assert [example.label for example in by_number.examples("train")] == [1, 0, None]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=30).filter(
    str.strip
)
TABLES = st.lists(st.tuples(TEXTS, st.sampled_from(["pos", "neg"])), min_size=1, max_size=12)
WRITERS: list[Callable[[Any], Any]] = [
    lambda file: csv.writer(file),
    lambda file: csv.writer(file, quoting=csv.QUOTE_ALL),
    lambda file: csv.writer(file, delimiter=";", lineterminator="\n"),
    lambda file: csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONNUMERIC),
]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=TABLES, way=st.sampled_from(WRITERS), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_what_a_writer_wrote_is_read(
    rows: Rows, way: Callable[[Any], Any], encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO(newline="")
    way(text).writerows([("text", "label"), *rows])
    path = tmp_path_factory.mktemp("written") / "rows.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    frames = open_table(path).read_frames(["text", "label"])
    assert [row for frame in frames for row in frame.iter_rows()] == rows


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=200) | st.text(st.sampled_from('",;\t\n ab1'), max_size=60).map(str.encode),
    ending=st.sampled_from(["csv", "tsv", "jsonl", "json"]),
)
def test_any_bytes_are_read_or_refused_by_file(
    content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"rows.{ending}"
    path.write_bytes(b"text,label\n" + content if ending == "csv" else content)
    try:
        table = open_table(path)
        columns = table.read_columns(table.read_columns())
        frames = list(table.read_frames(columns)) if columns else []
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert all(isinstance(frame, pl.DataFrame) for frame in frames)
