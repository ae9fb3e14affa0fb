"""Vectors that know nothing of their rows, against what they are said to be."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import distill.data.controls
from distill.data.controls import ConstantTeacher, DrawnTeacher, ShuffledTeacher, TeacherSwap, measure_moments
from distill.data.split import Split, read_split
from distill.data.vectors import StoredVectors, VectorColumn
from shared.schema import Status
from shared.shards.manifest import choose_teacher, load_manifest
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows, with_answer

VECTORS = StoredVectors("embedding", WIDTH)


def look_up(split: Split, swapped: VectorColumn, numbers: Any) -> Any:
    """Vectors by row numbers of the split: what a control puts in place of the shards' own lies in memory."""
    assert swapped.shard_columns == ()
    assert swapped.widths == VECTORS.widths
    return swapped.decode(pa.table({}), numbers, split.groups[0], 0)


def swap(split: Split, control: TeacherSwap, numbers: Any, seed: int = 0, folder: Path = Path()) -> Any:
    return look_up(split, control.swap_vectors(split, VECTORS, seed, folder), numbers)


def test_every_vector_stays_and_hardly_any_keeps_its_row(write_folder: WriteFolder, tmp_path: Path) -> None:
    rows = make_rows(300)
    rows[7] = with_answer(rows[7], status=Status.FAILED, embedding=None)
    folder = choose_teacher(write_folder({"train": [rows[:100], rows[100:130], rows[130:]]}))
    split = read_split(folder, load_manifest(folder), "train")
    answered = np.flatnonzero(split.answered)
    own = np.stack([np.asarray(rows[n].answer.embedding, np.float16) for n in answered])

    def shuffle(seed: int) -> Any:
        return swap(split, ShuffledTeacher(), answered, seed, tmp_path)

    got = shuffle(0)
    order = np.lexsort(own.T), np.lexsort(got.T)
    np.testing.assert_array_equal(own[order[0]], got[order[1]])
    assert (own == got).all(axis=1).mean() < 0.05
    np.testing.assert_array_equal(shuffle(0), got)
    assert (shuffle(1) != got).any()


def test_a_row_gets_the_same_vector_whenever_it_is_asked_for(write_folder: WriteFolder, tmp_path: Path) -> None:
    folder = choose_teacher(write_folder({"train": [make_rows(50)]}))
    split = read_split(folder, load_manifest(folder), "train")
    shuffled = ShuffledTeacher().swap_vectors(split, VECTORS, 0, tmp_path)
    everything = look_up(split, shuffled, np.arange(50))
    np.testing.assert_array_equal(look_up(split, shuffled, np.array([9, 4])), everything[[9, 4]])


@pytest.fixture
def split(write_folder: WriteFolder) -> Split:
    """Three shards; one row without an answer; a constant dimension, and one that is the sum of two others."""
    rows = []
    for i, row in enumerate(make_rows(400)):
        vector = np.asarray(row.answer.embedding, np.float64)
        vector[3], vector[4] = 2.0, vector[0] + vector[1]
        rows.append(with_answer(row, embedding=vector) if i != 7 else with_answer(row, status=Status.FAILED))
    folder = choose_teacher(write_folder({"train": [rows[:100], rows[100:130], rows[130:]]}))
    return read_split(folder, load_manifest(folder), "train")


def own_vectors(split: Split) -> Any:
    """All answered rows' vectors, read back through pyarrow alone."""
    import pyarrow.parquet as pq

    tables = [pq.ParquetFile(path).read() for path in dict.fromkeys(group.path for group in split.groups)]
    rows = [row for table in tables for row in table.to_pylist() if row["status"] == "ok"]
    return np.array([row["embedding"] for row in rows], np.float64)


def test_random_vectors_have_the_mean_and_the_covariance_of_the_real_ones(split: Split) -> None:
    own = own_vectors(split)
    covariance = np.cov(own.T, bias=True)
    mean, factor = measure_moments(split, VECTORS)
    np.testing.assert_allclose(mean, own.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-6)
    drawn = swap(split, DrawnTeacher(), np.arange(20_000))
    np.testing.assert_allclose(drawn.mean(axis=0), own.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), covariance, atol=0.35)
    assert abs(np.cov(own.T)[0, 4]) > 1, "the dimensions do hang together"
    assert np.ptp(drawn[:, 3]) < 1e-4


def test_vectors_too_wide_for_a_covariance_have_the_variances(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill.data.controls, "MAX_COVARIANCE_WIDTH", WIDTH - 1)
    own = own_vectors(split)
    drawn = swap(split, DrawnTeacher(), np.arange(20_000))
    np.testing.assert_allclose(drawn.std(axis=0), own.std(axis=0), rtol=0.03, atol=1e-6)
    correlation = np.corrcoef(np.delete(drawn, 3, axis=1).T) - np.eye(WIDTH - 1)
    assert np.abs(correlation).max() < 0.05


def test_a_random_vector_belongs_to_its_row_and_seed(split: Split) -> None:
    everything = swap(split, DrawnTeacher(), np.arange(50))
    np.testing.assert_allclose(swap(split, DrawnTeacher(), np.array([9, 4])), everything[[9, 4]], rtol=1e-6)
    assert not np.allclose(everything[0], everything[1])
    assert not np.allclose(swap(split, DrawnTeacher(), np.array([9]), seed=1), everything[9])


def test_a_constant_target_is_one_rows_vector(split: Split) -> None:
    own = own_vectors(split)
    chosen = set()
    for seed in range(8):
        got = swap(split, ConstantTeacher(), np.array([5, 250, 5]), seed)
        assert got.shape == (3, WIDTH)
        assert (got == got[0]).all()
        (place,) = np.flatnonzero((own == got[0]).all(axis=1))
        chosen.add(int(place))
    assert len(chosen) > 4


@pytest.mark.parametrize("seed", [0, 5])
def test_every_control_of_the_vectors_restated(split: Split, tmp_path: Path, seed: int) -> None:
    """Each by its equation, from the rows as pyarrow alone reads them; i counts the answered rows."""
    own = own_vectors(split)
    numbers = np.flatnonzero(split.answered)
    n, d = own.shape
    mean = own.sum(axis=0) / n
    _, factor = measure_moments(split, VECTORS)  # L, of which L L^T alone is determined
    covariance = sum(np.outer(x - mean, x - mean) for x in own) / n
    np.testing.assert_allclose(
        [sum(a * b for a, b in zip(u, v, strict=True)) for u in factor for v in factor], np.ravel(covariance), atol=1e-6
    )
    draws = [
        np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, int(i)])).standard_normal(d) for i in numbers
    ]
    chosen = int(np.flatnonzero(numbers == np.random.default_rng([seed, 2]).choice(numbers))[0])
    expected: list[tuple[TeacherSwap, Any]] = [
        (ShuffledTeacher(), own[np.random.default_rng([seed, 1]).permutation(n)]),
        (DrawnTeacher(), [mean + factor @ z for z in draws]),
        (ConstantTeacher(), [own[chosen]] * n),
    ]
    for control, vectors in expected:
        np.testing.assert_allclose(swap(split, control, numbers, seed, tmp_path), vectors, rtol=1e-5, atol=1e-5)
