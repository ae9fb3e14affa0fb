"""Several teachers of the same examples: joined by example, their vectors side by side, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.answers import Answers, gather_distributions, gather_vectors, join_teachers, open_teachers
from distill.data.split import Split, read_split
from distill.data.vectors import iterate_vectors
from shared.errors import DataError, ShardError, UsageError
from shared.schema import Row, Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest, load_manifest
from tests.distill.distill_rows import WIDTH, make_rows, with_answer, without_label

ROWS = 60


def write(path: Path, name: str, splits: dict[str, list[list[Row]]], labels: tuple[str, ...] = ("bad", "good")) -> Path:
    manifest = Manifest(
        task="toy",
        teacher=name,
        kind="classification",
        labels=labels,
        metric="accuracy",
        recipe={"teacher": name},
        source="made by the test",
    )
    with TeacherFolder.open(path / "toy", manifest) as folder:
        for split, shards in splits.items():
            for rows in shards:
                folder.append(split, rows)
                folder.seal(split)
    return path / "toy" / f"teacher={name}"


def judge(rows: list[Row], seed: int = 4) -> tuple[list[Row], Any]:
    """The same examples, answered with label distributions of 2 labels and a residual."""
    p = np.random.default_rng(seed).dirichlet([1.0, 1.0, 0.3], len(rows))
    return [
        with_answer(row, embedding=None, label_logprobs=np.log(own[:2]).tolist(), residual_mass=float(own[2]))
        for row, own in zip(rows, p, strict=True)
    ], p


def join(*folders: Path) -> tuple[Split, tuple[Answers, ...]]:
    teachers = open_teachers(folders, None)
    return join_teachers(teachers, read_split(teachers[0].folder, teachers[0].manifest, "train"))


def read_all(split: Split, answers: Any, tmp_path: Path, *columns: Any) -> Any:
    vectors = gather_vectors(answers, split, columns, "no/encoder", tmp_path)
    return np.concatenate(list(iterate_vectors(split, vectors)))


@pytest.mark.parametrize("seed", range(3))
def test_each_row_has_the_vectors_of_its_own_example(tmp_path: Path, seed: int) -> None:
    rows = make_rows(ROWS)
    judged, p = judge(rows)
    order = np.random.default_rng(seed).permutation(ROWS)
    a = write(tmp_path, "a", {"train": [rows[:25], rows[25:]]})
    b = write(tmp_path, "b", {"train": [[judged[i] for i in order[:9]], [judged[i] for i in order[9:]]]})
    split, answers = join(a, b)
    assert split.answered.all()
    got = read_all(split, answers, tmp_path)
    own = np.stack([np.asarray(row.answer.embedding, np.float16) for row in rows])
    np.testing.assert_array_equal(got[:, :WIDTH], own.astype(np.float32))
    np.testing.assert_allclose(np.exp(got[:, WIDTH:]), p, rtol=1e-5, atol=1.2e-7)
    assert not list(tmp_path.glob("*.npy"))


def test_rows_that_one_teacher_did_not_answer_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(ROWS)
    judged, p = judge(rows)
    judged[3] = with_answer(judged[3], status=Status.REFUSED)
    rows[10] = with_answer(rows[10], status=Status.FAILED, embedding=None)
    a, b = write(tmp_path, "a", {"train": [rows]}), write(tmp_path, "b", {"train": [judged[:50]]})
    split, answers = join(a, b)
    left = [i for i in range(50) if i not in (3, 10)]
    assert np.flatnonzero(split.answered).tolist() == left
    assert "teacher=b: 11 rows of train have no whole answer there and are left out" in capsys.readouterr().err
    np.testing.assert_allclose(np.exp(read_all(split, answers, tmp_path)[:, WIDTH:]), p[left], rtol=1e-5, atol=1.2e-7)


def test_all_draws_of_an_example_have_the_further_teachers_first_answer(tmp_path: Path) -> None:
    rows = make_rows(20)
    judged, p = judge(rows)
    again = [replace(row, draw=1, request_key=f"{i:064x}") for i, row in enumerate(judge(rows, seed=9)[0])]
    twice = [replace(row, draw=1, request_key=f"{99 + i:064x}") for i, row in enumerate(rows)]
    a = write(tmp_path, "a", {"train": [rows, twice]})
    b = write(tmp_path, "b", {"train": [again[::-1], judged]})
    split, answers = join(a, b)
    got = read_all(split, answers, tmp_path)[:, WIDTH:]
    np.testing.assert_allclose(np.exp(got), np.concatenate([p, p]), rtol=1e-5, atol=1.2e-7)


def test_each_teacher_gives_what_it_has_of_the_columns(tmp_path: Path) -> None:
    rows = make_rows(ROWS)
    judged, p = judge(rows)
    both = [with_answer(row, embedding=np.full(2, i)) for i, row in enumerate(judged)]
    a, b = write(tmp_path, "a", {"train": [rows]}), write(tmp_path, "b", {"train": [both]})
    split, answers = join(a, b)
    assert read_all(split, answers, tmp_path, "embedding").shape == (ROWS, WIDTH + 2)
    assert read_all(split, answers, tmp_path, "label_logprobs", "embedding").shape == (ROWS, WIDTH + 3 + 2)
    with pytest.raises(DataError, match="teacher=a has none of the columns label_logprobs: leave it out"):
        read_all(split, answers, tmp_path, "label_logprobs")
    with pytest.raises(DataError, match="'0-0' has no reply: its teacher gave none"):
        read_all(split, answers, tmp_path, "reply")
    (only,) = gather_distributions(answers, split, 2, tmp_path)
    np.testing.assert_allclose(np.exp(np.concatenate(list(iterate_vectors(split, only)))), p, rtol=1e-5, atol=1.2e-7)


def test_one_teacher_is_left_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path, "a", {"train": [make_rows(5)]})
    split = read_split(folder, load_manifest(folder), "train")
    joined, answers = join_teachers(open_teachers((folder,), None), split)
    assert joined is split
    assert answers[0].place is None


# --- what is refused ---


def test_mixed_label_sets_are_refused(tmp_path: Path) -> None:
    rows = make_rows(10)
    a = write(tmp_path, "a", {"train": [rows]})
    b = write(tmp_path, "b", {"train": [rows]}, labels=("good", "bad"))
    with pytest.raises(
        UsageError, match=r"teacher=b is a classification over good, bad: .*same labels in the same ord"
    ):
        open_teachers((a, b), None)


def test_another_task_with_the_same_ids_is_refused(tmp_path: Path) -> None:
    rows = make_rows(10)
    other = [replace(row, example=replace(row.example, text="something else")) for row in rows]
    a, b = write(tmp_path, "a", {"train": [rows]}), write(tmp_path, "b", {"train": [other]})
    with pytest.raises(DataError, match=r"'0-0' has another text than .*teacher=b.*not asked about the same data"):
        join(a, b)


def test_teachers_without_a_row_in_common_are_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path, "a", {"train": [make_rows(10)]}), write(tmp_path, "b", {"train": [make_rows(10, 1)]})
    with pytest.raises(DataError, match="no answered example of the split train in common"):
        join(a, b)
    failed = [with_answer(row, status=Status.FAILED) for row in make_rows(10)]
    with pytest.raises(DataError, match="no answered example of the split train in common"):
        join(a, write(tmp_path, "c", {"train": [failed]}))


def test_a_teacher_without_the_split_is_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path, "a", {"train": [make_rows(10)]}), write(tmp_path, "b", {"test": [make_rows(10)]})
    with pytest.raises(ShardError, match="teacher=b has no sealed rows of the split 'train'"):
        join(a, b)


def test_the_same_shards_twice_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path, "a", {"train": [make_rows(10)]})
    with pytest.raises(UsageError, match="given twice"):
        open_teachers((a, a.parent), None)


def test_a_further_teachers_bad_vector_is_named_where_it_lies(tmp_path: Path) -> None:
    rows = make_rows(10)
    bad = [*rows[:6], with_answer(rows[6], embedding=np.full(WIDTH, np.nan)), *rows[7:]]
    a, b = write(tmp_path, "a", {"train": [rows]}), write(tmp_path, "b", {"train": [bad]})
    split, answers = join(a, b)
    with pytest.raises(DataError, match=r"teacher=b/.*'0-6' has a vector that is not finite"):
        read_all(split, answers, tmp_path)


def test_distributions_over_other_labels_than_the_manifests_are_refused(tmp_path: Path) -> None:
    rows = [with_answer(row, embedding=None, label_logprobs=[-1.0, -1.5, -2.0]) for row in make_rows(10)]
    split, answers = join(write(tmp_path, "a", {"train": [rows]}))
    with pytest.raises(DataError, match="label_logprobs of 3 numbers, and its manifest has 2 labels"):
        read_all(split, answers, tmp_path)


def test_a_whole_run_of_two_teachers(tmp_path: Path, tiny_student: Path) -> None:
    from distill.config import make_distill_config
    from distill.run import run_distillation

    rows, dev = make_rows(48), make_rows(20, 1)
    hidden = [row if i % 4 == 0 else without_label(row) for i, row in enumerate(rows)]
    a = write(tmp_path, "a", {"train": [hidden], "validation": [dev]})
    b = write(tmp_path, "b", {"train": [judge(rows)[0][:40]], "validation": [judge(dev)[0]]})
    c = write(tmp_path, "c", {"train": [judge(rows, seed=7)[0]]})
    common: dict[str, Any] = {"shards": a, "student": str(tiny_student), "epochs": 2, "batch_size": 16}
    common["preset"] = "armada"
    for further, control, soft in ((b, "none", "aligner"), (b, "shuffled-teacher", "kl"), (c, "random-vectors", "kl")):
        config = make_distill_config(**common, further_shards=(further,), control=control, soft=soft)
        _, metrics = run_distillation(config, tmp_path / "runs")
        assert metrics["rows"]["answered"] == (40 if further == b else 48)
        assert metrics["teacher"] == f"a+{further.name[-1]}"
        assert set(metrics["manifest_sha256"]) == {str(a), str(further)}
        assert (metrics["aligner_dev"] is None) == (further == c), "c was not asked about dev rows"
