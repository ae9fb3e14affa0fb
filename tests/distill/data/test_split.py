"""Which rows are used, and which labels are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.split import Split, keep_labels, read_split
from shared.errors import DataError, ShardError
from shared.schema import Row, Status
from shared.shards.manifest import choose_teacher, load_manifest
from shared.shards.read import read_row_group
from tests.distill.distill_rows import WriteFolder, make_rows, with_answer, without_label


def read(path: Path, split: str = "train") -> Split:
    folder = choose_teacher(path)
    return read_split(folder, load_manifest(folder), split)


def sample_ids(split: Split) -> list[str]:
    return [i for group in split.groups for i in read_row_group(group, ["sample_id"])["sample_id"].to_pylist()]


def test_rows_are_numbered_through_the_shards(write_folder: WriteFolder) -> None:
    rows = make_rows(50)
    split = read(write_folder({"train": [rows[:20], rows[20:25], rows[25:]]}))
    assert sample_ids(split) == [row.example.sample_id for row in rows]
    assert split.target.tolist() == [row.example.label for row in rows]
    assert split.starts() == [0, 20, 25]
    assert split.answered.all()
    assert split.first.all()


def test_status_label_and_draw_are_told_apart(write_folder: WriteFolder) -> None:
    a, b, c, d = make_rows(4)
    rows = [
        with_answer(a, status=Status.TRUNCATED),
        without_label(b),
        replace(c, draw=1),
        with_answer(d, status=Status.FAILED, embedding=None),
    ]
    split = read(write_folder({"train": [rows]}))
    assert split.answered.tolist() == [False, True, True, False]
    assert split.labelled.tolist() == [True, False, True, True]
    assert split.first.tolist() == [True, True, False, True]


def test_targets_are_values_for_regression(write_folder: WriteFolder) -> None:
    rows = make_rows(5, regression=True)
    split = read(write_folder({"train": [rows]}, kind="regression", labels=()))
    np.testing.assert_allclose(split.target, np.array([row.example.target for row in rows], np.float64), rtol=1e-6)


def test_a_label_outside_the_task_is_named(write_folder: WriteFolder) -> None:
    rows = make_rows(3)
    rows[1] = replace(rows[1], example=replace(rows[1].example, label=2))
    with pytest.raises(DataError, match=r"part-.*'0-1' has label 2, which is not one of the task's 2 labels"):
        read(write_folder({"train": [rows]}))


def test_a_missing_split_is_named(write_folder: WriteFolder) -> None:
    path = write_folder({"train": [make_rows(3)]})
    with pytest.raises(ShardError, match=r"no sealed rows of the split 'validation'; it has train"):
        read(path, "validation")


def unbalanced() -> list[Row]:
    rows = make_rows(200, classes=2)
    return [replace(r, example=replace(r.example, label=int(i % 10 == 0))) for i, r in enumerate(rows)]


@pytest.mark.parametrize(
    ("count", "per_class"), [(20, [18, 2]), (2, [1, 1]), (3, [2, 1]), (200, [180, 20]), (1, [1, 0])]
)
def test_kept_labels_are_stratified(write_folder: WriteFolder, count: int, per_class: list[int]) -> None:
    split = read(write_folder({"train": [unbalanced()]}))
    kept = keep_labels(split, count, seed=0)
    assert np.bincount(split.target[kept], minlength=2).tolist() == per_class


def test_kept_labels_depend_on_the_seed_and_not_on_the_order(write_folder: WriteFolder) -> None:
    rows = unbalanced()
    split = read(write_folder({"train": [rows]}, task="a"))
    other = read(write_folder({"train": [rows[100:][::-1], rows[:100]]}, task="b"))

    def kept(of: Split, count: int, seed: int) -> set[str]:
        return {i for i, keep in zip(sample_ids(of), keep_labels(of, count, seed), strict=True) if keep}

    assert kept(split, 30, 0) == kept(other, 30, 0)
    assert kept(split, 30, 0) != kept(split, 30, 1)
    assert kept(split, 30, 0) < kept(split, 60, 0)


def test_only_answered_labelled_rows_are_kept_and_draws_go_together(write_folder: WriteFolder) -> None:
    rows = make_rows(20)
    rows = [
        *(with_answer(r, status=Status.FAILED) for r in rows[:5]),
        *(without_label(r) for r in rows[5:10]),
        *rows[10:],
        *(replace(r, draw=1) for r in rows[10:]),
    ]
    split = read(write_folder({"train": [rows]}))
    kept = keep_labels(split, 6, seed=0)
    assert kept.sum() == 12
    assert not kept[:10].any()
    assert (kept[10:20] == kept[20:]).all()


def test_more_labels_than_there_are_is_refused(write_folder: WriteFolder) -> None:
    split = read(write_folder({"train": [[*make_rows(5), *map(without_label, make_rows(5, 1))]]}))
    with pytest.raises(DataError, match="has 5 labelled examples with an answer, and 6 labels"):
        keep_labels(split, 6, seed=0)


def test_regression_keeps_labels_by_chance_alone(write_folder: WriteFolder) -> None:
    split = read(write_folder({"train": [make_rows(50, regression=True)]}, kind="regression", labels=()))
    assert keep_labels(split, 17, seed=3).sum() == 17
