"""The teacher's own label distributions: as they were given, as controls change them, and refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.controls import ConstantTeacher, DrawnTeacher, ShuffledTeacher, TeacherSwap, permute_rows
from distill.data.distributions import measure_mass, read_label_logprobs
from distill.data.split import Split, read_split
from distill.data.vectors import LOG_FLOOR, KeptVectors, StoredVectors, rank_answered
from distill.methods.targets import measure_entropy
from shared.errors import DataError
from shared.schema import Row, Status
from shared.shards.manifest import choose_teacher, load_manifest
from tests.distill.distill_rows import WriteFolder, make_rows, with_answer

Array = np.ndarray[Any, Any]
ROWS = 60
FAILED = 7


def draw_probabilities() -> Array:
    """Three labels and the residual, (n, 4)."""
    return np.random.default_rng(0).dirichlet([2.0, 1.0, 1.0, 0.5], ROWS)


def make_judged(probabilities: Array) -> list[Row]:
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities)
    rows = [
        with_answer(row, embedding=None, label_logprobs=own[:-1].tolist(), residual_mass=float(p[-1]))
        for row, own, p in zip(make_rows(len(logs), classes=3), logs, probabilities, strict=True)
    ]
    return [with_answer(row, status=Status.FAILED) if i == FAILED else row for i, row in enumerate(rows)]


@pytest.fixture
def open_split(write_folder: WriteFolder) -> Any:
    def make(rows: list[Row]) -> Split:
        path = write_folder({"train": [rows[:25], rows[25:]]}, labels=("a", "b", "c"))
        folder = choose_teacher(path)
        return read_split(folder, load_manifest(folder), "train")

    return make


def read(split: Split, swap: TeacherSwap | None = None, seed: int = 0) -> Array:
    """What is kept of them lies in a file of the shards' folder, which has no name any more."""
    work = split.groups[0].path.parent
    before = set(work.iterdir())
    got = read_label_logprobs(split, [StoredVectors("label_logprobs", 4)], work, swap, seed)
    assert set(work.iterdir()) == before
    return got


def test_they_come_as_they_were_given_and_not_renormalised(open_split: Any) -> None:
    p = draw_probabilities()
    got = read(open_split(make_judged(p)))
    np.testing.assert_allclose(np.exp(got), np.delete(p, FAILED, axis=0)[:, :3], rtol=1e-5, atol=1.2e-7)
    assert np.exp(got).sum(axis=1).min() < 0.9


def test_a_label_that_was_not_seen_is_very_unlikely_and_not_impossible(open_split: Any) -> None:
    p = draw_probabilities()
    p[0] = [0.9, 0.0, 0.1, 0.0]
    got = read(open_split(make_judged(p)))
    assert got[0, 1] == LOG_FLOOR


def test_a_shuffle_keeps_every_distribution_and_pairs_it_as_the_vectors_are(open_split: Any) -> None:
    split = open_split(make_judged(draw_probabilities()))
    own, shuffled = read(split), read(split, ShuffledTeacher(), seed=3)
    np.testing.assert_array_equal(shuffled, own[permute_rows(ROWS - 1, 3)])
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(own, axis=0))
    assert (shuffled == own).all(axis=1).mean() < 0.1


def test_random_ones_are_distributions_with_the_moments_of_the_logs(open_split: Any) -> None:
    p = np.delete(draw_probabilities(), FAILED, axis=0)
    split = open_split(make_judged(draw_probabilities()))
    draws = [read(split, DrawnTeacher(), seed) for seed in range(200)]
    logs = np.log(p)
    rng = np.random.default_rng(1)
    normal = rng.multivariate_normal(logs.mean(axis=0), np.cov(logs.T, bias=True), 20_000)
    expected = np.exp(normal) / np.exp(normal).sum(axis=1, keepdims=True)
    got = np.exp(np.concatenate(draws))
    assert got.sum(axis=1).max() < 1
    np.testing.assert_allclose(got.mean(axis=0), expected[:, :3].mean(axis=0), atol=0.02)
    np.testing.assert_allclose(got.std(axis=0), expected[:, :3].std(axis=0), atol=0.02)


def test_a_constant_one_is_the_mean_over_rows(open_split: Any) -> None:
    p = np.delete(draw_probabilities(), FAILED, axis=0)
    got = read(open_split(make_judged(draw_probabilities())), ConstantTeacher())
    np.testing.assert_allclose(np.exp(got), np.tile(p[:, :3].mean(axis=0), (ROWS - 1, 1)), rtol=1e-5)


def test_several_teachers_are_mixed(open_split: Any, tmp_path: Path) -> None:
    p = np.delete(draw_probabilities(), FAILED, axis=0)
    other = np.random.default_rng(1).dirichlet([1.0, 1.0, 1.0, 3.0], ROWS - 1)
    split = open_split(make_judged(draw_probabilities()))
    second = KeptVectors((4,), np.log(other), rank_answered(split))
    got = read_label_logprobs(split, [StoredVectors("label_logprobs", 4), second], tmp_path)
    np.testing.assert_allclose(np.exp(got), ((p + other) / 2)[:, :3], rtol=1e-5)


@pytest.mark.parametrize("swap", [None, ShuffledTeacher(), DrawnTeacher(), ConstantTeacher()])
def test_blocks_of_any_size_come_to_the_same(
    open_split: Any, swap: TeacherSwap | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = open_split(make_judged(draw_probabilities()))
    whole = read(split, swap, seed=2)
    assert measure_mass(whole) == pytest.approx(np.exp(whole).sum(axis=1).mean(), rel=1e-6)
    entropy = measure_entropy(whole, 2.0)
    monkeypatch.setattr("distill.data.controls.BLOCK_NUMBERS", 28)
    monkeypatch.setattr("distill.data.columns.PIECE_BYTES", 120)
    np.testing.assert_allclose(read(split, swap, seed=2), whole, rtol=1e-5)
    assert measure_mass(whole) == pytest.approx(np.exp(whole).sum(axis=1).mean(), rel=1e-6)
    assert measure_entropy(whole, 2.0) == pytest.approx(entropy, rel=1e-12)


def test_a_row_without_one_is_named(open_split: Any) -> None:
    rows = make_judged(draw_probabilities())
    rows[30] = with_answer(rows[30], label_logprobs=None)
    with pytest.raises(DataError, match="'0-30' has no label_logprobs"):
        read(open_split(rows))


def test_other_labels_than_the_tasks_are_refused(open_split: Any) -> None:
    rows = make_judged(draw_probabilities())
    rows[30] = with_answer(rows[30], label_logprobs=[-1.0, -1.0])
    with pytest.raises(DataError, match="'0-30' has label_logprobs of 2 numbers"):
        read(open_split(rows))


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.nan, "a vector that is not finite"), (0.5, "label_logprobs whose probabilities sum to 2.384")],
)
def test_probabilities_that_cannot_be_are_named(open_split: Any, value: float, problem: str) -> None:
    rows = make_judged(draw_probabilities())
    rows[31] = with_answer(rows[31], label_logprobs=[value, -1.0, -1.0])
    with pytest.raises(DataError, match=f"'0-31' has {problem}"):
        read(open_split(rows))


def test_a_teacher_that_says_the_same_of_every_row_is_refused(open_split: Any) -> None:
    rows = make_judged(np.tile([0.7, 0.1, 0.1, 0.1], (ROWS, 1)))
    with pytest.raises(DataError, match="gave all 59 rows of the split train the same label distribution"):
        read(open_split(rows))
