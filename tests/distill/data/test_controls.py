"""Vectors that know nothing of their rows, against what they are said to be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distill.data.controls
from distill.data.controls import draw_vectors, make_lookup, measure_moments, repeat_vector, shuffle_vectors
from distill.data.split import Split, read_split
from distill.data.vectors import Vectors
from shared.schema import Status
from shared.shards.manifest import choose_teacher, load_manifest
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows, with_answer

VECTORS = Vectors("embedding", WIDTH)


def test_every_vector_stays_and_hardly_any_keeps_its_row(write_folder: WriteFolder, tmp_path: Path) -> None:
    rows = make_rows(300)
    rows[7] = with_answer(rows[7], status=Status.FAILED, embedding=None)
    folder = choose_teacher(write_folder({"train": [rows[:100], rows[100:130], rows[130:]]}))
    split = read_split(folder, load_manifest(folder), "train")
    answered = np.flatnonzero(split.answered)
    own = np.stack([np.asarray(rows[n].answer.embedding, np.float16) for n in answered])

    def shuffle(seed: int) -> Any:
        return shuffle_vectors(split, VECTORS, seed, tmp_path)(answered)

    got = shuffle(0)
    order = np.lexsort(own.T), np.lexsort(got.T)
    np.testing.assert_array_equal(own[order[0]], got[order[1]])
    assert (own == got).all(axis=1).mean() < 0.05
    np.testing.assert_array_equal(shuffle(0), got)
    assert (shuffle(1) != got).any()


def test_a_row_gets_the_same_vector_whenever_it_is_asked_for(write_folder: WriteFolder, tmp_path: Path) -> None:
    folder = choose_teacher(write_folder({"train": [make_rows(50)]}))
    split = read_split(folder, load_manifest(folder), "train")
    lookup = shuffle_vectors(split, VECTORS, 0, tmp_path)
    everything = lookup(np.arange(50))
    np.testing.assert_array_equal(lookup(np.array([9, 4])), everything[[9, 4]])


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
    drawn = draw_vectors(split, VECTORS, 0)(np.arange(20_000))
    np.testing.assert_allclose(drawn.mean(axis=0), own.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), covariance, atol=0.35)
    assert abs(np.cov(own.T)[0, 4]) > 1, "the dimensions do hang together"
    assert np.ptp(drawn[:, 3]) < 1e-4


def test_vectors_too_wide_for_a_covariance_have_the_variances(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill.data.controls, "MAX_COVARIANCE_WIDTH", WIDTH - 1)
    own = own_vectors(split)
    drawn = draw_vectors(split, VECTORS, 0)(np.arange(20_000))
    np.testing.assert_allclose(drawn.std(axis=0), own.std(axis=0), rtol=0.03, atol=1e-6)
    correlation = np.corrcoef(np.delete(drawn, 3, axis=1).T) - np.eye(WIDTH - 1)
    assert np.abs(correlation).max() < 0.05


def test_a_random_vector_belongs_to_its_row_and_seed(split: Split) -> None:
    lookup = draw_vectors(split, VECTORS, 0)
    everything = lookup(np.arange(50))
    np.testing.assert_allclose(lookup(np.array([9, 4])), everything[[9, 4]], rtol=1e-6)
    assert not np.allclose(everything[0], everything[1])
    assert not np.allclose(draw_vectors(split, VECTORS, 1)(np.array([9])), everything[9])


def test_a_constant_target_is_one_rows_vector(split: Split) -> None:
    own = own_vectors(split)
    chosen = set()
    for seed in range(8):
        got = repeat_vector(split, VECTORS, seed)(np.array([5, 250, 5]))
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
    draws = [np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, i])).standard_normal(d) for i in numbers]
    chosen = int(np.flatnonzero(numbers == np.random.default_rng([seed, 2]).choice(numbers))[0])
    expected = {
        "shuffled-teacher": own[np.random.default_rng([seed, 1]).permutation(n)],
        "random-vectors": [mean + factor @ z for z in draws],
        "constant-target": [own[chosen]] * n,
    }
    for control, vectors in expected.items():
        lookup = make_lookup(control, split, VECTORS, seed, tmp_path)  # type: ignore[arg-type]
        assert lookup is not None
        np.testing.assert_allclose(lookup(numbers), vectors, rtol=1e-5, atol=1e-5)


def test_only_controls_of_the_vectors_replace_them(split: Split, tmp_path: Path) -> None:
    replaced = {
        control: make_lookup(control, split, VECTORS, 0, tmp_path)  # type: ignore[arg-type]
        for control in ("none", "shuffled-teacher", "random-vectors", "constant-target", "frozen-aligner")
    }
    assert [name for name, lookup in replaced.items() if lookup is None] == ["none", "frozen-aligner"]
