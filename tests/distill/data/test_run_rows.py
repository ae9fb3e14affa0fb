"""Which rows are learnt from, which choose, and which are reported: above all where the test split hides its labels."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.compare.run import check_reported
from distill.data.run_rows import Splits, choose_visible, find_scored, mark_scored, read_splits
from distill.data.split import Bools, Split
from shared.errors import DataError, ShardError
from shared.schema import Row, Status
from shared.shards.manifest import choose_teacher, load_manifest
from shared.shards.read import read_row_group
from tests.distill.distill_rows import WriteFolder, make_rows, with_answer, without_label

HIDDEN = [[without_label(row) for row in make_rows(30, 9)]]


def read(path: Path) -> Splits:
    folder = choose_teacher(path)
    return read_splits(folder, load_manifest(folder))


def name_rows(split: Split | None, marked: Bools) -> set[str]:
    assert split is not None
    ids = [i for group in split.groups for i in read_row_group(group, ["sample_id"])["sample_id"].to_pylist()]
    return {ids[row] for row in np.flatnonzero(marked)}


def name_labelled(split: Split | None) -> set[str]:
    assert split is not None
    return name_rows(split, split.labelled)


def test_labelled_test_rows_are_reported_as_they_are(write_folder: WriteFolder) -> None:
    rows = {"train": [make_rows(60)], "validation": [make_rows(120, 1)], "test": [make_rows(30, 2)]}
    splits = read(write_folder(rows))
    assert (splits.dev_from, splits.test_from, splits.held_out, splits.describe()) == ("validation", "test", 0, None)
    assert [len(name_labelled(each)) for each in (splits.train, splits.dev, splits.test)] == [60, 120, 30]


def test_half_of_validation_is_reported_where_the_test_split_hides_its_labels(write_folder: WriteFolder) -> None:
    rows = make_rows(300, 1)
    train = make_rows(60)
    splits = read(write_folder({"train": [train], "validation": [rows], "test": HIDDEN}, task="a"))
    assert (splits.dev_from, splits.test_from, splits.held_out) == ("validation", "validation", 0)
    reported, choosing = name_labelled(splits.test), name_labelled(splits.dev)
    assert not reported & choosing
    assert reported | choosing == {row.example.sample_id for row in rows}
    assert 120 <= len(reported) <= 180
    assert splits.train.answered.all()
    said = f"the test split has no labels: {len(reported)} rows of validation, picked by a hash, choose nothing"
    assert splits.describe() == said

    # The same rows in another order, in other shards, and fewer of them: each row stays what it is.
    fewer = rows[:200][::-1]
    again = read(write_folder({"train": [train], "validation": [fewer[:50], fewer[50:]]}, task="b"))
    assert name_labelled(again.test) == reported & {row.example.sample_id for row in fewer}


@pytest.mark.parametrize("validation", [56, 0])
def test_a_fifth_of_train_is_never_learnt_from_where_validation_is_small_or_absent(
    write_folder: WriteFolder, validation: int
) -> None:
    rows = [*make_rows(250, classes=3), *map(without_label, make_rows(20, 5, classes=3))]
    rows += [replace(row, draw=1) for row in rows[:100]]
    rows[3] = with_answer(rows[3], status=Status.FAILED, embedding=None)
    dev = {"validation": [make_rows(validation, 1, classes=3)]} if validation else {}
    path = write_folder({"train": [rows], **dev, "test": HIDDEN}, labels=("a", "b", "c"))
    splits = read(path)
    assert splits.test_from == "train"
    assert splits.dev_from == ("validation" if validation else "train")
    learnt, reported = name_rows(splits.train, splits.train.answered), name_labelled(splits.test)
    assert not learnt & (reported | (name_labelled(splits.dev) if not validation else set()))
    assert name_labelled(splits.train) <= learnt | {rows[3].example.sample_id}, "its answer failed"
    assert {row.example.sample_id for row in rows[250:270]} <= learnt, "rows without a label are learnt from"
    assert 35 <= len(reported) <= 65
    assert splits.test is not None
    assert mark_scored(splits.test).sum() == len(reported), "draws of a row score once"
    failed = rows[3].example.sample_id not in reported | (name_labelled(splits.dev) if not validation else set())
    assert splits.held_out == len(splits.train) - splits.train.answered.sum() - failed
    folder = choose_teacher(path)
    found = find_scored(folder, load_manifest(folder), "test")
    assert name_labelled(found) == reported


def test_what_has_too_few_rows_to_hold_out_reports_nothing(write_folder: WriteFolder) -> None:
    splits = read(write_folder({"train": [make_rows(50)], "validation": [make_rows(30, 1)]}, task="a"))
    assert (splits.test, splits.test_from, splits.held_out) == (None, None, 0)
    assert splits.train.labelled.all()
    with pytest.raises(ShardError, match="no sealed rows of the split 'validation'"):
        read(write_folder({"train": [make_rows(50)]}, task="b"))
    with pytest.raises(DataError, match="no labelled rows in the split 'validation'"):
        read(write_folder({"train": [make_rows(50)], "validation": HIDDEN}, task="c"))


def test_the_teachers_labels_stand_in_where_nobody_gave_any(write_folder: WriteFolder) -> None:
    def ask(count: int, seed: int) -> list[Row]:
        said = (math.log(0.9), math.log(0.1))
        rows = [without_label(row) for row in make_rows(count, seed)]
        return [with_answer(row, label_logprobs=said[:: 1 - 2 * (i % 2)]) for i, row in enumerate(rows)]

    train = ask(60, 0)
    train[:5] = [with_answer(row, status=Status.FAILED, label_logprobs=None) for row in train[:5]]
    path = write_folder({"train": [train], "validation": [ask(30, 1)], "test": HIDDEN})
    splits = read(path)
    assert splits.by_teacher
    assert (splits.dev_from, splits.test_from) == ("validation", None)
    assert name_labelled(splits.train) == {row.example.sample_id for row in train[5:]}
    assert splits.train.target.tolist()[5:] == [i % 2 for i in range(5, 60)]
    assert "scores are agreement with the teacher" in (splits.describe() or "")
    folder = choose_teacher(path)
    with pytest.raises(DataError, match="no row with a label, so a comparison would only say"):
        check_reported(folder, load_manifest(folder))

    one_label = {"train": [[make_rows(1)[0], *train]], "validation": [ask(30, 1)]}
    assert not read(write_folder({**one_label, "validation": [make_rows(30, 1)]}, task="b")).by_teacher

    without = read(write_folder({"train": [train], "validation": [make_rows(30, 1)]}, task="c"))
    with pytest.raises(DataError, match=r"Give some rows of it a label.*stand in only where no split has any"):
        choose_visible(without.train, None, 0)
