"""shared.tasks.check: every kind of bad row is refused by file and row before anything is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shared.errors import DataError
from shared.tasks import load_task, task_from_file

GOOD = [{"id": f"r{i}", "text": f"text {i}", "pair": "p", "label": "ab"[i % 2], "score": i / 2} for i in range(40)]


def write(path: Path, changes: dict[int, dict[str, Any]]) -> Path:
    rows = [{**row, **changes.get(i, {})} for i, row in enumerate(GOOD)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pl.DataFrame(rows, infer_schema_length=None, strict=False).write_csv(path)
    else:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return path


def refuse(path: Path, **options: Any) -> str:
    """The message with which the file is refused."""
    columns = {"text_column": "text", "label_column": "label", **options}
    if "target_column" in options:
        del columns["label_column"]
    with pytest.raises(DataError) as raised:
        load_task(task_from_file(str(path), **columns))
    return str(raised.value)


@pytest.fixture(params=["rows.jsonl", "rows.csv", "rows.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file: Path = tmp_path / request.param
    return file


def test_good_rows_pass(path: Path) -> None:
    loaded = load_task(task_from_file(str(write(path, {})), "text", "pair", label_column="label", id_column="id"))
    assert sum(loaded.splits.values()) == 40


def test_a_missing_column(path: Path) -> None:
    assert refuse(write(path, {}), label_column="lable") == (
        f"{path} has no column 'lable'; did you mean label? it has: id, text, pair, label, score"
    )


@pytest.mark.parametrize("empty", [None, "", " \t\n"])
def test_an_empty_text(empty: str | None, path: Path) -> None:
    message = refuse(write(path, {17: {"text": empty}}))
    assert f"{path}, row 17: the text is empty" in message
    assert "Rows are counted from 0" in message


def test_an_empty_second_text(path: Path) -> None:
    assert f"{path}, row 3: the text is empty" in refuse(write(path, {3: {"pair": " "}}), text_pair_column="pair")


def test_more_of_the_same_are_counted(path: Path) -> None:
    message = refuse(write(path, {i: {"text": ""} for i in range(5, 25)}))
    assert [f"row {i}:" in message for i in (5, 6, 7, 8)] == [True, True, True, False]
    assert "and 17 more like these" in message


def test_several_kinds_at_once(path: Path) -> None:
    message = refuse(
        write(path, {4: {"text": ""}, 9: {"label": "c"}, 30: {"id": "r2"}}), labels=["a", "b"], id_column="id"
    )
    for part in (
        "row 4: the text is empty",
        "row 9: the label is not one of a, b: 'c'",
        "row 30: the id 'r2' is that of row 2",
    ):
        assert f"{path}, {part}" in message


def test_an_unknown_label(path: Path) -> None:
    assert f"{path}, row 11: the label is not one of a, b: 'B'" in refuse(
        write(path, {11: {"label": "B"}}), labels=["a", "b"]
    )


def test_one_label_only(path: Path) -> None:
    changes = {i: {"label": "a"} for i in range(40)}
    assert refuse(write(path, changes)) == "all rows have the same label in the column 'label': 'a'"


def test_no_label_at_all(tmp_path: Path) -> None:
    changes = {i: {"label": None} for i in range(40)}
    assert "no row has a label in the column 'label'" in refuse(write(tmp_path / "rows.jsonl", changes))


def test_numbers_as_labels(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": "t", "label": i / 7}) + "\n" for i in range(300)))
    assert "more than 256 labels" in refuse(file)


@pytest.mark.parametrize("value", ["much", "nan", "inf"])
def test_a_target_that_is_no_number(value: str, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.csv", {6: {"score": value}})
    assert f"{file}, row 6: the target is no number: '{value}'".lower() in refuse(file, target_column="score").lower()


def test_a_target_outside_the_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "datasets/nyu-mll/glue/stsb"
    folder.mkdir(parents=True)
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "idx": [0, 1], "label": [1.0, 5.5]}
    pl.DataFrame(columns).write_parquet(folder / "train-00000-of-00001.parquet")
    monkeypatch.setenv("HARVEST_DISTILL_HUB", str(tmp_path))
    from shared.tasks import find_task

    with pytest.raises(DataError, match=r"row 1: the target is not between 0 and 5: '5\.5'"):
        load_task(find_task("stsb"))


def test_one_target_only(path: Path) -> None:
    changes = {i: {"score": 1.5} for i in range(40)}
    assert "the same target in the column 'score': 1.5" in refuse(write(path, changes), target_column="score")


def test_no_target_at_all_and_the_gaps_of_pandas(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pl.DataFrame({"text": ["a", "b"], "score": [float("nan")] * 2}).write_parquet(file)
    assert refuse(file, target_column="score") == "no row has a target in the column 'score'"
    pl.DataFrame({"text": ["a", "b", "c"], "score": [float("nan"), 1.0, 2.0]}).write_parquet(file)
    loaded = load_task(task_from_file(str(file), "text", target_column="score"))
    assert {e.text: e.target for s in loaded.splits for e in loaded.examples(s)} == {"a": None, "b": 1.0, "c": 2.0}


def test_an_id_that_occurs_twice(path: Path) -> None:
    message = refuse(write(path, {21: {"id": "r5"}, 33: {"id": "r5"}}), id_column="id")
    assert f"{path}, row 21: the id 'r5' is that of row 5 of {path.name}" in message
    assert f"{path}, row 33: the id 'r5' is that of row 5 of {path.name}" in message


def test_an_id_twice_in_two_files_of_a_split(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"train-{i}.jsonl", {} if i else {0: {"id": "r7"}, 7: {"id": "r0"}})
    message = refuse(tmp_path, id_column="id")
    assert "train-1.jsonl, row 0: the id 'r0' is that of row 7 of train-0.jsonl" in message
    assert "and 37 more like these" in message


def test_the_same_id_in_two_splits_is_allowed(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.jsonl", {})
    loaded = load_task(task_from_file(str(tmp_path), "text", label_column="label", id_column="id"))
    assert loaded.splits == {"train": 40, "validation": 40}


def test_an_empty_id(path: Path) -> None:
    assert f"{path}, row 8: the id is empty" in refuse(write(path, {8: {"id": None}}), id_column="id")


def test_empty_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert refuse(empty) == f"{empty} is empty"
    header = tmp_path / "header.csv"
    header.write_text("text,label\n")
    assert refuse(header) == f"{header} has no rows"
    nothing = tmp_path / "nothing.parquet"
    pl.DataFrame({"text": [], "label": []}).write_parquet(nothing)
    assert refuse(nothing) == f"{nothing} has no rows"


WRITERS = {".jsonl": "write_ndjson", ".csv": "write_csv", ".parquet": "write_parquet"}


def test_a_bad_row_far_into_the_file(tmp_path: Path) -> None:
    """Rows are numbered through all of the blocks that a file is read in."""
    for suffix in (".jsonl", ".csv", ".parquet"):
        file = tmp_path / f"rows{suffix}"
        frame = pl.DataFrame({"text": [f"{'long ' * 20}{i}" for i in range(50_000)], "label": ["a", "b"] * 25_000})
        frame = frame.with_columns(text=pl.when(pl.int_range(pl.len()) == 41_234).then(pl.lit(" ")).otherwise("text"))
        write: Callable[[Path], None] = getattr(frame, WRITERS[suffix])
        write(file)
        assert f"{file}, row 41234: the text is empty" in refuse(file)
