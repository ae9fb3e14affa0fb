"""ARMADA's two schedules, step by step, and what each epoch reports."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from distill.compute.devices import choose_device
from distill.config import make_distill_config
from distill.data.answers import open_teachers
from distill.data.run_rows import read_rows
from distill.losses.objective import Objective, make_objective
from distill.methods.aligning import make_aligner
from distill.methods.armada import Armada
from distill.methods.materials import find_model, gather_materials
from distill.models.aligner import Aligner
from distill.models.outputs import Outputs
from distill.training.checkpoint import Checkpoints
from distill.training.loop import Training
from distill.training.progress import EpochRecord
from tests.distill.distill_rows import WriteFolder, make_rows, without_label

STEPS = 6  # of 48 rows in batches of 8; 20 of the rows have labels: 3 batches of the aligner


class Watch:
    """Stands between the method and the objective, and writes down what is handed over."""

    def __init__(self, objective: Objective) -> None:
        self.aligner: Aligner | None = None
        self.calls: list[str] = []
        self.labelled: list[int] = []
        self.strengths: list[float] = []
        self._objective = objective

    def aligner_loss(self, outputs: Outputs, target: Tensor, labelled: Tensor) -> Tensor:
        assert self.aligner is not None
        assert self.aligner.training
        assert outputs.main.requires_grad
        assert labelled.all()
        self.calls.append("a")
        return self._objective.aligner_loss(outputs, target, labelled)

    def student_terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor, labelled: Tensor, strength: float
    ) -> dict[str, Tensor]:
        assert self.aligner is not None
        assert not self.aligner.training
        assert teacher is not None
        assert not teacher.main.requires_grad
        assert student.main.requires_grad
        self.calls.append("s")
        self.labelled.append(int(labelled.sum()))
        self.strengths.append(strength)
        return self._objective.student_terms(student, teacher, target, labelled, strength)


class Trained:
    """ARMADA trained on a folder, with its parts at hand."""

    def __init__(self, folder: Path, student: Path, work: Path, **options: Any) -> None:
        config = make_distill_config(
            shards=folder,
            student=str(student),
            batch_size=8,
            semantics="code",
            **{"preset": "armada", "epochs": 2, **options},
        )
        rows = read_rows(config, open_teachers(config.data.shards, None))
        device = choose_device("cpu", "float32")
        materials = gather_materials(config, rows, find_model(str(student)), device, work)
        self.watch = Watch(make_objective(config.method, "softmax"))
        objective = cast(Objective, self.watch)
        aligner = make_aligner(materials, objective)
        self.watch.aligner = aligner.aligner
        self.method = Armada(materials, aligner)
        self.method.objective = objective
        self.classifier = self.method.built.student.model.classifier
        self.start = self.classifier.weight.detach().clone()
        self.records: list[EpochRecord] = []
        training = Training(self.method, "armada", Checkpoints(work / "c.pt", {}), on_epoch=self.records.append)
        self.progress = training.run()


@pytest.fixture
def folder(write_folder: WriteFolder) -> Path:
    rows = [row if i < 20 else without_label(row) for i, row in enumerate(make_rows(48))]
    return write_folder({"train": [rows], "validation": [make_rows(12, 1)]})


def test_two_pass(folder: Path, tiny_student: Path, tmp_path: Path) -> None:
    done = Trained(folder, tiny_student, tmp_path)
    assert "".join(done.watch.calls) == ("a" * 3 + "s" * STEPS) * 2
    assert sum(done.watch.labelled) == 2 * 20, "each label counts once an epoch"
    assert [(r.counts["aligner/loss"], r.steps, r.rows) for r in done.records] == [(3, STEPS, 48)] * 2
    lines = [done.method.describe_epoch(record) for record in done.records]
    assert [line["aligner_steps"] for line in lines] == [3, 3]
    assert [set(line["student"]) for line in lines] == [{"total", "task", "soft", "match"}] * 2
    assert all(line["aligner_dev"] is not None for line in lines)


def test_interleaved(folder: Path, tiny_student: Path, tmp_path: Path) -> None:
    done = Trained(folder, tiny_student, tmp_path, schedule="interleaved")
    assert "".join(done.watch.calls) == "as" * STEPS * 2
    assert [r.counts["aligner/loss"] for r in done.records] == [STEPS] * 2


def test_the_student_is_that_of_the_best_epoch(folder: Path, tiny_student: Path, tmp_path: Path) -> None:
    done = Trained(folder, tiny_student, tmp_path, epochs=4, student_lr=1e-3)
    assert done.progress.best is not None
    assert torch.equal(done.classifier.weight, done.progress.best.weights["classifier.weight"])
    assert done.progress.best.dev == max(record.scores["dev"] for record in done.records)


def test_warmup_starts_slowly(folder: Path, tiny_student: Path, tmp_path: Path) -> None:
    moved = []
    for warmup in (0.0, 1.0):
        done = Trained(folder, tiny_student, tmp_path, epochs=1, student_lr=1e-3, warmup=warmup)
        moved.append(float((done.classifier.weight.detach() - done.start).abs().mean()))
    assert 0 < moved[1] < 0.8 * moved[0]


def test_the_teachers_weights_fall_over_all_steps(folder: Path, tiny_student: Path, tmp_path: Path) -> None:
    done = Trained(folder, tiny_student, tmp_path, teacher_decay="linear")
    assert done.watch.strengths == pytest.approx([1 - step / (2 * STEPS) for step in range(2 * STEPS)])


def test_the_aligner_can_start_ahead(folder: Path, tiny_student: Path, tmp_path: Path) -> None:
    done = Trained(folder, tiny_student, tmp_path, epochs=1, aligner_pretraining=2)
    assert "".join(done.watch.calls) == "a" * (2 * 3) + "a" * 3 + "s" * STEPS
    assert done.records[0].counts["aligner/loss"] == 3, "the epoch reports its own pass"
