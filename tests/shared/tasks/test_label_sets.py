"""Several labels a row: how files of users spell them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shared.errors import DataError, UsageError
from shared.tasks import TASKS, LoadedTask, find_task, load_task

CELLS = ["a|b", "b", None, "[]", """["c d", "a"]""", "['a', 'c d']", "b; c d", "a, b,c d", " ", "a,a"]
SETS = [(0, 1), (1,), None, (), (0, 2), (0, 2), (1, 2), (0, 1, 2), None, (0,)]


def read(path: Path, **options: Any) -> LoadedTask:
    return load_task(find_task(str(path), text_column="text", **options))


def list_sets(loaded: LoadedTask) -> list[tuple[int, ...] | None]:
    """The label sets of all rows, in the order of the file."""
    rows = [example for split in loaded.splits for example in loaded.examples(split)]
    return [row.label_set for row in sorted(rows, key=lambda row: int(row.text))]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_column_of_texts_or_of_lists_gives_each_row_its_labels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"films.{suffix}"
    texts = [str(number) for number in range(len(CELLS))]
    if suffix == "csv":
        pl.DataFrame({"text": texts, "genres": CELLS}).write_csv(path)
    else:
        lists = [None if some is None else [("a", "b", "c d")[one] for one in some] for some in SETS]
        rows = [{"text": text, "genres": names} for text, names in zip(texts, lists, strict=True)]
        pq.write_table(pa.Table.from_pylist(rows), path) if suffix == "parquet" else path.write_text(
            "\n".join(map(json.dumps, rows))
        )
    loaded = read(path, label_column="genres", multilabel=True)
    assert (loaded.task.kind, loaded.task.labels, loaded.task.metric) == ("multilabel", ("a", "b", "c d"), "f1_micro")
    assert loaded.task.question.endswith("a, b, c d. Answer with all that fit, separated by commas, or none.")
    assert list_sets(loaded) == SETS
    said = " ".join(loaded.notes)
    assert "to which none applies" in said
    assert "without a label" in said
    if suffix != "csv":
        with pytest.raises(DataError, match=r"'genres' holds .*say --multilabel"):
            read(path, label_column="genres")
    with pytest.raises(DataError, match=r"the label is not one of a, b: \["):
        read(path, label_column="genres", multilabel=True, labels=("a", "b"))


def test_lists_that_are_written_out_keep_quotes_and_escapes_and_nothing_but_labels_stands_in_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    cells = [json.dumps(["café", 'say "x"']), "['it\\'s', None]", "['a' 'b, c']", '["O\'Neil", 3, null]', "[a b, c]"]
    pl.DataFrame({"text": [*map(str, range(5))], "l": cells}).write_csv(path)
    loaded = read(path, label_column="l", multilabel=True)
    sets = [{loaded.task.labels[one] for one in some or ()} for some in list_sets(loaded)]
    assert sets == [{"café", 'say "x"'}, {"it's"}, {"a", "b, c"}, {"O'Neil", "3"}, {"a b", "c"}]
    path = tmp_path / "a.jsonl"
    path.write_text("""{"text": "0", "l": [{"name": "a"}]}\n{"text": "1", "l": []}\n""")
    with pytest.raises(DataError, match=r"'l' holds .*, not"):
        read(path, label_column="l", multilabel=True)


def test_a_column_of_0_and_1_for_each_label_is_one_label_of_the_row(tmp_path: Path) -> None:
    path = tmp_path / "comments.csv"
    path.write_text("text,toxic,threat\n0,1,0\n1,0,0\n2,-1,-1\n3,1.0,TRUE\n4,,\n")
    loaded = read(path, label_columns=("toxic", "threat"))
    assert loaded.task.labels == ("toxic", "threat")
    assert list_sets(loaded) == [(0,), (), None, (0, 1), None]
    path.write_text("text,toxic,threat\n0,1,0\n1,0,2\n")
    with pytest.raises(DataError, match=r"row 1: .2. in the column 'threat' is neither 0 nor 1"):
        read(path, label_columns=("toxic", "threat"))


def test_labels_that_look_like_several_are_told_and_an_empty_split_has_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pl.DataFrame({"text": ["0", "1", "2"], "l": ["a|b", "a", "b"]}).write_csv(path)
    assert (
        "'a|b' looks like several labels: where a row has several, say --multilabel"
        in read(path, label_column="l").notes
    )
    pl.DataFrame({"text": ["0", "1"], "l": ["a|b", "a"]}).write_csv(path)
    loaded = read(path, label_column="l", multilabel=True)
    empty = [name for name, rows in loaded.splits.items() if not rows]
    assert empty, "two rows do not fill three splits"
    assert not [note for note in loaded.notes if "looks like" in note or note.rstrip().endswith(":")]


def test_class_names_of_the_datasets_library_name_the_numbers_of_lists(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.Sequence(datasets.ClassLabel(names=["dull", "warm"]))}
    )
    rows = {"text": [str(number) for number in range(4)], "labels": [[1], [], [0, 1], [1, 0]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")
    loaded = load_task(find_task(str(tmp_path / "data.parquet"), multilabel=True))
    assert loaded.task.labels == ("dull", "warm")
    assert list_sets(loaded) == [(1,), (), (0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"label_column": "genres", "label_columns": ("genres", "text")}, "one of the two"),
        ({"label_column": "genres", "multilabel": True, "target_column": "text"}, "nothing else to answer"),
        ({"label_columns": ("genres",)}, "two or more"),
    ],
)
def test_what_contradicts_several_labels_is_refused(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    (tmp_path / "a.csv").write_text("text,genres\n0,a|b\n1,a\n")
    with pytest.raises(UsageError, match=problem):
        read(tmp_path / "a.csv", **options)


@pytest.mark.parametrize(("cells", "problem"), [(["a", "a"], "the same labels, a"), (["a", "[]"], "one label only")])
def test_labels_that_tell_nothing_apart_are_refused(tmp_path: Path, cells: list[str], problem: str) -> None:
    pl.DataFrame({"text": ["0", "1"], "genres": cells}).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=problem):
        read(tmp_path / "a.csv", label_column="genres", multilabel=True)


def test_mm_imdb_is_read_from_the_folder_that_mmbt_writes_and_leaves_other_genres_out(tmp_path: Path) -> None:
    (tmp_path / "mmimdb" / "dataset").mkdir(parents=True)
    Image.new("RGB", (4, 6)).save(tmp_path / "mmimdb" / "dataset" / "0.jpeg")
    films = [["Drama", "Film-Noir"], ["Comedy"], ["Drama", "Reality-TV"], ["Adult", "News"], ["Western", "Action"]]
    for split in ("train", "dev", "test"):
        rows = [
            {"id": f"{split}{n}", "text": f"plot {n}", "image": f"mmimdb/dataset/{n}.jpeg", "label": label}
            for n, label in enumerate(films)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = load_task(find_task("MM-IMDb", task_file=str(tmp_path)))
    assert loaded.splits == {"train": 4, "validation": 4, "test": 4}
    names = TASKS["mm_imdb"].labels
    assert len(names) == 23
    sets = [[names[one] for one in row.label_set or ()] for row in loaded.examples("validation")]
    assert sets == [["Drama", "Film-Noir"], ["Comedy"], ["Drama"], ["Action", "Western"]]
    assert "3 rows left out: other labels alone" in loaded.notes
