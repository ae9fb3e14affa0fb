"""Runs of the default recipe and of the baselines: what the student learns from, and what is said of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill.compute.devices import choose_device
from distill.config import make_distill_config
from distill.data.answers import open_teachers
from distill.data.columns import SOFT
from distill.data.run_rows import read_rows
from distill.data.split import keep_labels, read_split
from distill.methods.controls import make_method
from distill.methods.materials import Materials, find_model, gather_materials
from distill.run import run_distillation
from distill.training.progress import Progress
from shared.schema import Row
from shared.shards.manifest import load_manifest
from tests.distill.distill_rows import WriteFolder, make_rows, with_answer, without_label

LABELS = 24


def judge(rows: list[Row], right: float) -> list[Row]:
    """The teacher's label distributions, which put so much on the label."""
    shares = [[right, 0.9 - right], [0.9 - right, right]]
    return [
        with_answer(row, label_logprobs=np.log(shares[row.example.label or 0]).tolist(), residual_mass=0.1)
        for row in rows
    ]


@pytest.fixture
def gather(tiny_student: Path, tmp_path: Path) -> Callable[..., Materials]:
    """Gathers the materials of a run on a folder."""

    def make(folder: Path, **options: Any) -> Materials:
        config = make_distill_config(shards=folder, student=str(tiny_student), labels=LABELS, **options)
        rows = read_rows(config, open_teachers(config.data.shards, None))
        device = choose_device("cpu", "float32")
        return gather_materials(config, rows, find_model(str(tiny_student)), device, tmp_path)

    return make


def run(folder: Path, student: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    defaults: dict[str, Any] = {"labels": LABELS, "epochs": 1, "student_lr": 2e-3}
    config = make_distill_config(shards=folder, student=str(student), **{**defaults, **options})
    return run_distillation(config, folder.parent / "runs")


def read_targets(materials: Materials) -> tuple[torch.Tensor, list[int], dict[str, Any]]:
    """The soft targets of all rows that a student gets, those rows' numbers, and what was fitted."""
    method = make_method(materials)
    results: dict[str, Any] = {}
    for name in method.phases[:-1]:
        results[name] = method.make_phase(name, results).finish(Progress())
    batches = list(method.make_phase("student", results).batches(1, 0))
    numbers = [int(number) for batch in batches for number in batch.own.number]
    return torch.cat([batch.own.tensor(SOFT) for batch in batches]), numbers, results["head"]


def test_labelled_rows_get_what_was_held_out_and_all_rows_probabilities(
    write_folder: WriteFolder, gather: Callable[..., Materials]
) -> None:
    materials = gather(write_folder({"train": [make_rows(60)], "validation": [make_rows(8, 1)]}))
    assert materials.config.method.alpha == pytest.approx(0.5), "more than a third of the rows show their label"
    soft, numbers, head = read_targets(materials)
    assert sorted(numbers) == list(range(60))
    torch.testing.assert_close(soft.exp().sum(1), torch.ones(60))
    fitted = head["rows"].tolist()
    assert fitted == np.flatnonzero(materials.rows.visible).tolist()
    places = [numbers.index(row) for row in fitted]
    torch.testing.assert_close(soft[places], head["held_out"].log_softmax(1), atol=1e-5, rtol=0)
    assert (soft.argmax(1).numpy() == materials.rows.train.target[numbers]).mean() > 0.9


@pytest.mark.parametrize("kind", ["own distribution", "ridge"])
def test_auto_takes_the_teachers_own_distributions_where_they_make_labels_likelier(
    write_folder: WriteFolder, gather: Callable[..., Materials], kind: str
) -> None:
    draw = np.random.default_rng(0)
    rows = make_rows(60)
    if kind == "own distribution":
        rows = [with_answer(row, embedding=draw.normal(size=12)) for row in rows]
        rows = [judge([row], draw.uniform(0.8, 0.89))[0] for row in rows]
    else:
        rows = [judge([row], draw.uniform(0.4, 0.5))[0] for row in rows]
    folder = write_folder({"train": [rows], "validation": [make_rows(8, 1)]})
    soft, numbers, head = read_targets(gather(folder))
    # label_logprobs as a signal of a ridge may win as well where they know the label
    assert head["description"]["kind"] == kind or head["signal"] == "label_logprobs"
    if head["head"] is None:
        own = torch.tensor([rows[number].answer.label_logprobs for number in numbers])
        torch.testing.assert_close(soft, own, atol=2e-3, rtol=0)
    losses = head["description"]["held_out_loss"]
    assert (losses["own distribution"] < losses["ridge on vectors"]) == (kind == "own distribution")
    assert "own distribution" not in read_targets(gather(folder, soft="head"))[2]["description"]["held_out_loss"]


def test_the_default_run_says_what_its_head_is_and_sees_no_hidden_label(
    write_folder: WriteFolder, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(80)
    splits = {"validation": [make_rows(10, 1)], "test": [make_rows(10, 2)]}
    out, metrics = run(write_folder({"train": [rows], **splits}, task="a"), tiny_student)
    assert (metrics["variant"], metrics["preset"], metrics["aligner_steps"]) == ("distilled", "default", 0)
    head = metrics["teacher_head"]
    assert (head["kind"], head["signal"], head["rows"], head["hidden_rows"]) == (
        "ridge",
        "vectors",
        LABELS,
        80 - LABELS,
    )
    assert {"accuracy", "nll", "brier", "ece", "hidden_accuracy"} <= head.keys()
    assert head["hidden_accuracy"] > 0.9
    assert (head["test_rows"], head["validation_rows"]) == (10, 10)
    assert head["test"] > 0.8
    assert "the teacher's head: ridge on its vectors" in capsys.readouterr().err
    folder = Path(metrics["shards"])
    shown = keep_labels(read_split(folder, load_manifest(folder), "train"), LABELS, 0)
    hidden = [row if keep else without_label(row) for row, keep in zip(rows, shown, strict=True)]
    other, blind = run(write_folder({"train": [hidden], **splits}, task="b"), tiny_student)
    assert blind["teacher_head"]["hidden_rows"] == 0
    first, second = (load_file(each / "student" / "model.safetensors") for each in (out, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("control", ["none", "self-training", "linear-probe", "probe-distilled", "shuffled-teacher"])
def test_a_regression_by_the_default_recipe_and_its_controls(
    write_folder: WriteFolder, tiny_student: Path, control: str
) -> None:
    rows = {"train": [make_rows(60, regression=True)], "validation": [make_rows(20, 1, regression=True)]}
    folder = write_folder(rows, kind="regression", labels=(), metric="pearson", target_range=(0.0, 5.0))
    _, metrics = run(folder, tiny_student, control=control, epochs=2)
    assert np.isfinite(metrics["dev_best"])
    if control == "none":
        assert metrics["teacher_head"]["hidden_mse"] < 2
    if "probe" in control:
        assert metrics["dev_best"] > 0.5


@pytest.mark.parametrize("control", ["linear-probe", "probe-distilled"])
def test_a_probe_reads_the_frozen_student_and_trains_none(
    write_folder: WriteFolder, tiny_student: Path, control: str
) -> None:
    splits = {"validation": [make_rows(30, 1)], "test": [make_rows(30, 2)]}
    folder = write_folder({"train": [make_rows(100)], **splits}, task="a")
    out, metrics = run(folder, tiny_student, control=control)
    assert metrics["variant"] == control
    assert metrics["student_steps"] == 0
    assert metrics["probe"]["signal"] in ("mean", "first token", "last token")
    assert metrics["probe"]["rows"] == (LABELS if control == "linear-probe" else 100)
    assert metrics["test"] > 0.8
    assert (out / "probe.safetensors").exists()
    assert not (out / "student").exists()
    if control == "linear-probe":
        blind = [with_answer(row, embedding=None) for row in make_rows(100)]
        _, alone = run(write_folder({"train": [blind], **splits}, task="b"), tiny_student, control=control)
        assert alone["test"] == metrics["test"], "it has no teacher"


def test_pseudo_labels_are_the_likeliest_ones_and_certain(
    write_folder: WriteFolder, gather: Callable[..., Materials]
) -> None:
    folder = write_folder({"train": [make_rows(60)], "validation": [make_rows(8, 1)]})
    soft, numbers, _ = read_targets(gather(folder))
    hard, same, _ = read_targets(gather(folder, control="pseudo-labels", preset="armada"))
    order = [same.index(number) for number in numbers]
    assert torch.equal(hard[order].argmax(1), soft.argmax(1))
    assert float(hard.exp().max(1).values.min()) > 0.999
