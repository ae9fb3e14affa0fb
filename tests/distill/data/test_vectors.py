"""The teacher's vectors: read, measured, refused."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from distill.compute.processes import Processes
from distill.data.batches import BatchPart, RowSource, count_batches, iterate_batches
from distill.data.columns import VECTORS
from distill.data.split import Split, read_split
from distill.data.vectors import (
    LOG_FLOOR,
    StoredVectors,
    choose_sample,
    find_column,
    find_vectors,
    iterate_share,
    iterate_vectors,
    join_vectors,
    measure_vectors,
)
from shared.errors import DataError
from shared.schema import Row, Status
from shared.shards.manifest import choose_teacher, load_manifest
from shared.shards.read import read_row_group
from shared.stores.parquet import open_parquet
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows, with_answer


def read(path: Path) -> Split:
    folder = choose_teacher(path)
    return read_split(folder, load_manifest(folder), "train")


def stack(rows: list[Row]) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(row.answer.embedding, np.float16) for row in rows])


def test_embeddings_come_as_they_are_kept(write_folder: WriteFolder) -> None:
    rows = make_rows(20)
    split = read(write_folder({"train": [rows]}))
    vectors = find_vectors(split)
    assert vectors == StoredVectors("embedding", WIDTH)
    group = split.groups[0]
    picked = np.array([3, 0, 19])
    got = vectors.decode(read_row_group(group, vectors.shard_columns), picked, group, 0)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, stack(rows)[picked])


def test_mean_and_deviation_are_those_of_answered_rows(write_folder: WriteFolder) -> None:
    rows = make_rows(60)
    bad = [with_answer(r, status=Status.TRUNCATED, embedding=np.full(WIDTH, 1e4)) for r in make_rows(7, 1)]
    split = read(write_folder({"train": [rows[:10], [*bad, *rows[10:11]], rows[11:]]}))
    mean, std = measure_vectors(split, find_vectors(split))
    expected = stack(rows).astype(np.float64)
    np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, expected.std(axis=0), rtol=1e-6)


def test_a_constant_dimension_is_not_divided_by_zero(write_folder: WriteFolder) -> None:
    rows = [with_answer(r, embedding=np.array([2.0, i])) for i, r in enumerate(make_rows(4))]
    split = read(write_folder({"train": [rows]}))
    mean, std = measure_vectors(split, find_vectors(split))
    assert mean.tolist() == [2.0, 1.5]
    assert std[0] == 1.0


def test_label_logprobs_stand_in_with_their_residual(write_folder: WriteFolder) -> None:
    answers: list[dict[str, Any]] = [
        {"label_logprobs": [-0.1, -3.0], "residual_mass": 0.05},
        {"label_logprobs": [0.0, -np.inf], "residual_mass": 0.0},
        {"label_logprobs": [-1.0, -1.0], "residual_mass": None},
        {"label_logprobs": np.log([0.3, 0.7 - 1e-6]).tolist(), "residual_mass": None},
    ]
    rows = [with_answer(r, embedding=None, **a) for r, a in zip(make_rows(4), answers, strict=True)]
    split = read(write_folder({"train": [rows]}))
    vectors = find_vectors(split)
    assert vectors == StoredVectors("label_logprobs", 3)
    got = vectors.decode(read_row_group(split.groups[0], vectors.shard_columns), np.arange(4), split.groups[0], 0)
    expected = [
        [-0.1, -3.0, np.log(0.05)],
        [0.0, LOG_FLOOR, LOG_FLOOR],
        [-1.0, -1.0, np.log(1 - 2 * np.exp(-1.0))],
        [np.log(0.3), np.log(0.7), LOG_FLOOR],  # what is missing there is rounding
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert np.isfinite(np.concatenate(measure_vectors(split, vectors))).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_named(write_folder: WriteFolder, value: float) -> None:
    rows = make_rows(10)
    vector = np.ones(WIDTH)
    vector[4] = value
    split = read(write_folder({"train": [rows[:6], [*rows[6:8], with_answer(rows[8], embedding=vector), rows[9]]]}))
    with pytest.raises(DataError, match=r"part-00001-.*'0-8' has a vector that is not finite"):
        measure_vectors(split, find_vectors(split))


@pytest.mark.parametrize(
    ("vector", "message"),
    [(None, "'0-7' has no embedding, where others have 12"), (np.ones(5), "'0-7' has embedding of 5 numbers")],
)
def test_a_row_unlike_the_others_is_named(write_folder: WriteFolder, vector: Any, message: str) -> None:
    rows = make_rows(10)
    split = read(write_folder({"train": [rows[:5], [*rows[5:7], with_answer(rows[7], embedding=vector)]]}))
    with pytest.raises(DataError, match=message):
        measure_vectors(split, find_vectors(split))


def test_parts_of_any_width_count_the_same(write_folder: WriteFolder) -> None:
    """The standardised parts have the same sum of variances, and all dimensions together a mean variance of 1."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1.0, 1.0, 0.3], 80)
    rows = [
        with_answer(row, label_logprobs=np.log(own[:2]).tolist(), residual_mass=float(own[2]))
        for row, own in zip(make_rows(80), p, strict=True)
    ]
    split = read(write_folder({"train": [rows[:30], rows[30:]]}))
    vectors = join_vectors([find_column(split, "embedding"), find_column(split, "label_logprobs")])
    assert (vectors.widths, vectors.shard_columns) == ((WIDTH, 3), ("embedding", "label_logprobs", "residual_mass"))
    values = np.concatenate(list(iterate_vectors(split, vectors)))
    np.testing.assert_array_equal(values[:, :WIDTH], stack(rows).astype(np.float32))
    np.testing.assert_allclose(values[:, WIDTH:], np.maximum(np.log(p), LOG_FLOOR), rtol=1e-5)
    mean, std = measure_vectors(split, vectors)
    variances = ((values - mean) / std).var(axis=0)
    np.testing.assert_allclose([variances[:WIDTH].sum(), variances[WIDTH:].sum()], [7.5, 7.5], rtol=1e-4)
    np.testing.assert_allclose(variances[:WIDTH], variances[0], rtol=1e-4)
    assert join_vectors([vectors]) is vectors


@pytest.mark.parametrize("source", ["embedding", "label_logprobs"])
def test_a_column_that_was_asked_for_and_is_missing_is_named(write_folder: WriteFolder, source: Any) -> None:
    split = read(write_folder({"train": [make_rows(3, vectors=False)]}))
    with pytest.raises(DataError, match=f"'0-0' has no {source}: its teacher gave none"):
        find_column(split, source)


def test_a_teacher_that_says_the_same_of_all_rows_is_refused(write_folder: WriteFolder) -> None:
    rows = [with_answer(r, embedding=np.ones(WIDTH)) for r in make_rows(9)]
    split = read(write_folder({"train": [rows[:4], rows[4:]]}))
    with pytest.raises(DataError, match="gave all 9 rows of the split train the same vector"):
        measure_vectors(split, find_vectors(split))


def test_a_teacher_that_gave_nothing_is_refused(write_folder: WriteFolder) -> None:
    split = read(write_folder({"train": [make_rows(3, vectors=False)]}))
    with pytest.raises(DataError, match=r"'0-0' has neither an embedding nor label_logprobs.*--loss none --alpha 0"):
        find_vectors(split)


def test_no_answer_at_all_is_refused(write_folder: WriteFolder) -> None:
    split = read(write_folder({"train": [[with_answer(r, status=Status.FAILED) for r in make_rows(3)]]}))
    with pytest.raises(DataError, match="no row with an answer"):
        find_vectors(split)


def test_of_many_vectors_a_sample_is_measured_and_its_error_said(
    write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(600)
    split = read(write_folder({"train": [rows[first : first + 20] for first in range(0, 600, 20)]}))
    vectors = find_vectors(split)
    exact = measure_vectors(split, vectors)
    assert "sample" not in capsys.readouterr().err
    monkeypatch.setattr("distill.data.vectors.SAMPLE_ROWS", 300)
    mean, std = measure_vectors(split, vectors)
    said = re.search(
        r"those of 300 of the split train's 600 rows: the standard error of a mean is ([\d.e-]+) deviations, that of a "
        r"deviation ([\d.e-]+) of it",
        capsys.readouterr().err,
    )
    assert said is not None
    errors = (mean - exact[0]) / exact[1], std / exact[1] - 1
    for error, claimed in zip(errors, map(float, said.groups()), strict=True):
        assert 0 < np.sqrt(np.mean(error**2)) < 3 * claimed
        assert claimed < 0.1
    again = measure_vectors(split, vectors)
    np.testing.assert_array_equal(again, (mean, std))
    monkeypatch.setattr("distill.data.vectors.SAMPLE_BYTES", 1)  # eight row groups, then
    measure_vectors(split, vectors)
    assert "those of 160 of the split train's 600 rows" in capsys.readouterr().err


def test_a_vector_outside_the_sample_is_named_when_it_is_read(
    write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.data.vectors.SAMPLE_ROWS", 1)
    rows = make_rows(100)
    groups = [rows[first : first + 5] for first in range(0, 100, 5)]
    split = read(write_folder({"train": groups}))
    sample = choose_sample(split, find_vectors(split))
    assert sample.share == 0.4
    seen = {piece.start for pieces in sample.groups for piece in pieces}
    outside = next(first for first in range(0, 100, 5) if first not in seen)
    rows[outside] = with_answer(rows[outside], embedding=np.full(WIDTH, np.nan))
    split = read(write_folder({"train": [rows[first : first + 5] for first in range(0, 100, 5)]}, task="bad"))
    vectors = find_vectors(split)
    assert np.isfinite(measure_vectors(split, vectors)).all()
    source = RowSource(split, {VECTORS: vectors}, wanted=split.answered, buffer_bytes=10_000)
    with pytest.raises(DataError, match=f"'0-{outside}' has a vector that is not finite"):
        list(iterate_batches([BatchPart(source, 8, once=True)], count_batches(source, 8), 0, 1))


def test_a_pass_opens_each_shard_once_whatever_its_row_groups(
    write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.shards.seal.ROW_GROUP_ROWS", 10)
    rows = make_rows(100)
    split = read(write_folder({"train": [rows[:60], rows[60:]]}))
    assert len(split.groups) == 10
    vectors, opened = find_vectors(split), Mock(wraps=open_parquet)
    monkeypatch.setattr("shared.shards.read.open_parquet", opened)
    for count in (1, 3):
        opened.reset_mock()
        blocks = [block for rank in range(count) for block in iterate_share(split, vectors, Processes(rank, count))]
        assert opened.call_count == 2 * count
        for place, block in blocks:
            np.testing.assert_array_equal(block, stack(rows[place : place + len(block)]))
        assert sorted(place for place, _ in blocks) == list(range(0, 100, 10))
