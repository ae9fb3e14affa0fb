"""Runs over several labels a row: binary heads, their soft targets, and what the run leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import pipeline

from distill.config import make_distill_config
from distill.controls import CONTROLS, Control
from distill.data.distributions import read_label_logprobs
from distill.data.run_rows import read_splits
from distill.data.split import keep_labels, read_split
from distill.data.vectors import StoredVectors
from distill.losses.label_kl import label_set_kl
from distill.methods.targets import match_smoothing, measure_set_entropy, smooth_label_sets, smooth_like
from distill.models.head_selection import measure_loss
from distill.models.teacher_head import RidgeLogistic
from distill.run import run_distillation
from distill.runs.evaluate import evaluate_run
from distill.scoring.calibration import measure_calibration
from distill.scoring.metrics import SET_METRICS, f1_micro
from shared.errors import UsageError
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards.manifest import load_manifest
from tests.distill.distill_rows import WIDTH, WORDS, WriteFolder, make_rows

LABELS = ("a", "b", "c")
KIND: dict[str, Any] = {"kind": "multilabel", "labels": LABELS, "metric": "f1_micro"}


def make_sets(count: int, seed: int = 0, *, labelled: bool = True, vectors: bool = True) -> list[Row]:
    """Rows each of whose labels shows in a word of the text, in the vector under noise, and in the probabilities."""
    rng, rows = np.random.default_rng(seed), []
    directions = np.random.default_rng(99).normal(size=(len(LABELS), WIDTH))
    for i in range(count):
        there = rng.random(len(LABELS)) < [0.5, 0.4, 0.2]
        words = [WORDS[int(j)] for j in rng.integers(6, len(WORDS), rng.integers(1, 5))]
        words += [WORDS[2 * int(k) + int(rng.integers(2))] for k in np.flatnonzero(there)]
        found = tuple(int(k) for k in np.flatnonzero(there)) if labelled else None
        example = Example(f"{seed}-{i}", " ".join(rng.permutation(words)), label_set=found)
        answer = Answer(
            Status.OK,
            embedding=there @ directions + rng.normal(scale=0.2, size=WIDTH) if vectors else None,
            label_logprobs=np.log(np.where(there, 0.9, 0.05)).tolist(),
            residual_mass=0.0,
            attempts=1,
        )
        rows.append(Row(example, f"{seed:032x}{i:032x}", 0, answer))
    return rows


def run(shards: Path, student: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    defaults: dict[str, Any] = {"epochs": 1, "student_lr": 3e-3, "batch_size": 16}
    config = make_distill_config(shards=shards, student=str(student), **{**defaults, **options})
    return run_distillation(config, shards.parent / "runs")


@pytest.fixture
def films(write_folder: WriteFolder) -> Path:
    rows = {"train": [make_sets(120)], "validation": [make_sets(40, 1)], "test": [make_sets(30, 2)]}
    return write_folder(rows, **KIND)


def test_a_run_trains_a_binary_head_a_label_and_leaves_what_transformers_reads(films: Path, tiny_student: Path) -> None:
    folder, metrics = run(films, tiny_student, epochs=10, labels=60)
    assert metrics["metric"] == "f1_micro"
    assert metrics["teacher_head"]["hidden"] > 0.9, (
        "a head on the teacher's answers knows the rows it was not fitted on"
    )
    assert metrics["dev_best"] > 0.6
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    texts, target = (
        [row.example.text for row in make_sets(30, 2)],
        np.array([[k in (row.example.label_set or ()) for k in range(3)] for row in make_sets(30, 2)]),
    )
    classify: Any = pipeline("text-classification", model=str(folder / "student"), top_k=None)
    said = classify(texts)
    shares = np.array([[{one["label"]: one["score"] for one in row}[name] for name in LABELS] for row in said])
    assert f1_micro(np.log(shares / (1 - shares)), target) == pytest.approx(metrics["test"])
    assert evaluate_run(folder, None, "test", "cpu", "auto")["score"] == metrics["test"]
    table = pq.read_table(folder / "row_scores.parquet")
    means = {
        one["split"]: one["score_mean"] for one in table.group_by("split").aggregate([("score", "mean")]).to_pylist()
    }
    assert means["test"] == pytest.approx(metrics["test"])
    assert {f"test_{name}" for name in SET_METRICS[1:]} < means.keys()
    assert 'student", top_k=None)' in (folder / "README.md").read_text(), "the likeliest label alone is not all of them"
    with np.load(folder / "predictions.npz") as kept:
        assert kept["test_target"].dtype == np.bool_
        np.testing.assert_array_equal(kept["test_target"], target)


ARMADA: dict[str, Any] = {"preset": "armada"}
KL: dict[str, Any] = {"soft": "kl"}


@pytest.mark.real
@pytest.mark.parametrize(
    ("control", "options"),
    [
        *((name, {}) for name, traits in CONTROLS.items() if traits.for_labels and not traits.needs_aligner),
        *((name, ARMADA) for name in ("frozen-aligner", "label-smoothing", "self-training")),
        *((name, KL) for name in ("shuffled-teacher", "random-vectors", "constant-target", "label-smoothing")),
    ],
)
def test_every_control_and_baseline_runs(
    films: Path, tiny_student: Path, control: Control, options: dict[str, Any]
) -> None:
    folder, metrics = run(films, tiny_student, control=control, epochs=2, **options)
    assert metrics["control"] == control
    table = pq.read_table(folder / "row_scores.parquet", filters=[("split", "=", "test")])
    assert np.mean(table["score"].to_numpy()) == pytest.approx(metrics["test"])
    if "probe" in control:
        assert metrics["test"] > 0.8, "a word shows each label"


def test_rows_that_nobody_labelled_take_the_labels_that_the_teacher_finds_likelier_than_not(
    write_folder: WriteFolder,
) -> None:
    rows = {name: [make_sets(30, seed, labelled=False)] for seed, name in enumerate(("train", "validation", "test"))}
    folder = write_folder(rows, **KIND) / "teacher=t"
    splits = read_splits(folder, load_manifest(folder))
    assert splits.by_teacher
    wanted = [[k in (row.example.label_set or ()) for k in range(3)] for row in make_sets(30)]
    np.testing.assert_array_equal(splits.train.target, wanted)


def test_kept_labels_are_spread_over_the_rarest_and_distributions_become_logits(films: Path, tmp_path: Path) -> None:
    folder = films / "teacher=t"
    split = read_split(folder, load_manifest(folder), "train")
    kept = keep_labels(split, 20, 0)
    assert kept.sum() == 20
    share = split.target[:, 2].mean()
    assert abs(split.target[kept, 2].mean() - share) < 0.06, "the rarest label has its share"
    logits = read_label_logprobs(split, [StoredVectors("label_logprobs", 4)], tmp_path, phi="sigmoid")
    shares = np.where(split.target, 0.9, 0.05)
    np.testing.assert_allclose(logits, np.log(shares / (1 - shares)), rtol=1e-4)


def test_a_student_of_one_label_a_row_is_not_scored_on_several(
    films: Path, write_folder: WriteFolder, tiny_student: Path
) -> None:
    rows = {"train": [make_rows(30, classes=3)], "validation": [make_rows(30, 1, classes=3)]}
    other, _ = run(write_folder(rows, task="one", labels=LABELS), tiny_student)
    with pytest.raises(UsageError, match=r"gives a text one label, and in .* a text has several labels"):
        evaluate_run(other, films, "validation", "cpu", "auto")


def test_losses_and_measures_of_label_sets_are_sums_over_two_classes_each() -> None:
    rng = np.random.default_rng(0)
    t, s, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 3)), rng.random((7, 3)) < 0.4
    p, q = (1 / (1 + np.exp(-x / 2.0)) for x in (t, s))
    wanted = 4.0 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1).mean()
    student = torch.from_numpy(s).requires_grad_()
    assert float(label_set_kl(torch.from_numpy(t), student, 2.0).detach()) == pytest.approx(wanted)
    assert torch.autograd.gradcheck(lambda x: label_set_kl(torch.from_numpy(t), x, 2.0), student)
    assert measure_loss(s, y, "sigmoid") == pytest.approx(
        -np.log(np.where(y, 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(s)))).sum(axis=1).mean()
    )
    assert measure_set_entropy(t, 2.0) == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=1).mean())
    smoothed = smooth_like(t, 2.0, "sigmoid")
    assert smoothed.smoothing == pytest.approx(match_smoothing(smoothed.entropy / 3, 2))
    logits = smooth_label_sets(torch.from_numpy(y), smoothed.smoothing, 2.0).main.numpy()
    assert measure_set_entropy(logits, 2.0) == pytest.approx(smoothed.entropy, rel=1e-5)
    shares = 1 / (1 + np.exp(-s))
    assert measure_calibration(s[None], y).brier == pytest.approx(2 * ((shares - y) ** 2).mean())
    ((weight, bias),) = RidgeLogistic(3, 0.1, "sigmoid")(t, y)
    slope = t.T @ (1 / (1 + np.exp(-(t @ weight + bias))) - y) / 7 + 0.1 * weight
    assert np.abs(slope).max() < 1e-5
