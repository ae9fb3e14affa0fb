"""The two schedules, step by step, and what the loop reports."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from distill.compute.devices import choose_device
from distill.config import make_distill_config
from distill.data.batches import Part, Source
from distill.data.split import read_split
from distill.data.tokens import TextEncoder
from distill.data.vectors import Vectors
from distill.losses.objective import Objective, make_objective
from distill.models.aligner import Aligner
from distill.models.classifier import Student
from distill.models.outputs import Outputs
from distill.models.pretrained import load_student, load_tokenizer
from distill.training.loop import Data, EpochRecord, Scores, Trained, derive_seed, make_schedule, train
from shared.shards.manifest import choose_teacher, load_manifest
from shared.sources import resolve_model
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows, without_label

STEPS = 6  # of 48 rows in batches of 8; 20 of the rows have labels: 3 batches of the aligner


class Watch:
    """Stands between the loop and the objective, and writes down what the loop hands over."""

    def __init__(self, objective: Objective, aligner: Aligner) -> None:
        self.calls: list[str] = []
        self.labelled: list[int] = []
        self.strengths: list[float] = []
        self._objective, self._aligner = objective, aligner

    def aligner_loss(self, outputs: Outputs, target: Tensor, labelled: Tensor) -> Tensor:
        assert self._aligner.training
        assert outputs.main.requires_grad
        assert labelled.all()
        self.calls.append("a")
        return self._objective.aligner_loss(outputs, target, labelled)

    def student_terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor, labelled: Tensor, strength: float
    ) -> dict[str, Tensor]:
        assert not self._aligner.training
        assert teacher is not None
        assert not teacher.main.requires_grad
        assert student.main.requires_grad
        self.calls.append("s")
        self.labelled.append(int(labelled.sum()))
        self.strengths.append(strength)
        return self._objective.student_terms(student, teacher, target, labelled, strength)


class Silent:
    def __init__(self) -> None:
        self.steps = 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps


class Loop:
    """One call of train(), with its parts at hand. `devs` are the dev scores of the epochs."""

    def __init__(self, folder: Path, student: Path, devs: list[float], **options: Any) -> None:
        config = make_distill_config(shards=folder, batch_size=8, epochs=len(devs), semantics="code", **options)
        teacher = choose_teacher(folder)
        split = read_split(teacher, load_manifest(teacher), "train")
        source = resolve_model(str(student))
        encoder = TextEncoder(load_tokenizer(source), 64)
        vectors = Vectors("embedding", WIDTH)
        rows = {"vectors": vectors, "buffer_rows": 1000}
        everything = Source(split, split.answered, split.labelled, encoder=encoder, **cast(Any, rows))
        labelled = Source(split, split.labelled, split.labelled, **cast(Any, rows))
        torch.manual_seed(0)
        self.student = Student(load_student(source, 2), "code", WIDTH)
        self.aligner = Aligner(torch.zeros(WIDTH), torch.ones(WIDTH), 2, "code")
        self.watch = Watch(make_objective(config.method, False), self.aligner)
        self.tracker = Silent()
        self.records: list[EpochRecord] = []
        self.weights: list[Tensor] = []
        scores = iter(devs)

        def score() -> float:
            self.weights.append(self.student.model.classifier.weight.detach().clone())
            return next(scores)

        self.trained: Trained = train(
            config,
            cast(Objective, self.watch),
            self.student,
            self.aligner,
            Data((Part(everything, 8, once=True),), STEPS, labelled, encoder),
            choose_device("cpu", "float32"),
            Scores(score, None),
            self.tracker,
            self.records.append,
        )


@pytest.fixture
def folder(write_folder: WriteFolder) -> Path:
    rows = [row if i < 20 else without_label(row) for i, row in enumerate(make_rows(48))]
    return write_folder({"train": [rows]})


def test_two_pass(folder: Path, tiny_student: Path) -> None:
    loop = Loop(folder, tiny_student, [0.1, 0.2])
    assert "".join(loop.watch.calls) == ("a" * 3 + "s" * STEPS) * 2
    assert sum(loop.watch.labelled) == 2 * 20, "each label counts once an epoch"
    assert [(r.aligner_steps, r.student_steps, r.student_rows) for r in loop.records] == [(3, STEPS, 48)] * 2
    assert loop.tracker.steps == 2 * STEPS


def test_interleaved(folder: Path, tiny_student: Path) -> None:
    loop = Loop(folder, tiny_student, [0.1, 0.2], schedule="interleaved")
    assert "".join(loop.watch.calls) == "as" * STEPS * 2
    assert [r.aligner_steps for r in loop.records] == [STEPS] * 2


def test_the_best_epoch_is_kept_the_first_of_equals(folder: Path, tiny_student: Path) -> None:
    loop = Loop(folder, tiny_student, [0.3, 0.7, 0.7, 0.5], student_lr=1e-3)
    assert (loop.trained.best_epoch, loop.trained.best_dev) == (2, 0.7)
    assert torch.equal(loop.trained.best["classifier.weight"], loop.weights[1])
    assert not torch.equal(loop.weights[1], loop.weights[3])
    assert [r.dev for r in loop.trained.epochs] == [0.3, 0.7, 0.7, 0.5]


def test_warmup_starts_slowly(folder: Path, tiny_student: Path) -> None:
    start = Loop(folder, tiny_student, [0.0], student_lr=1e-12).weights[0]
    moved = [
        float((Loop(folder, tiny_student, [0.0], student_lr=1e-3, warmup=w).weights[0] - start).abs().mean())
        for w in (0.0, 1.0)
    ]
    assert 0 < moved[1] < 0.8 * moved[0]


def test_seeds_of_different_uses_differ() -> None:
    seeds = {derive_seed(seed, use) for seed in range(5) for use in ("student", "heads", "aligner")}
    assert len(seeds) == 15
    assert derive_seed(1, "pass", 2) == derive_seed(1, "pass", 2) != derive_seed(1, "pass", 3)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("none", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]), ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25])],
)
def test_the_learning_rate_rises_and_falls_as_told(decay: str, expected: list[float]) -> None:
    config = make_distill_config(shards=Path("x"), warmup=1 / 3, decay=decay)
    factor = make_schedule(config, 6)
    assert [factor(step) for step in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("none", [1.0] * 6),
        ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", [1, (2 + 3**0.5) / 4, 0.75, 0.5, 0.25, (2 - 3**0.5) / 4]),
    ],
)
def test_the_teachers_weights_fall_as_told(folder: Path, tiny_student: Path, decay: str, expected: list[float]) -> None:
    loop = Loop(folder, tiny_student, [0.1], teacher_decay=decay)
    assert loop.watch.strengths == pytest.approx(expected)


def test_the_aligner_can_start_ahead(folder: Path, tiny_student: Path) -> None:
    loop = Loop(folder, tiny_student, [0.1], aligner_pretraining=2)
    assert "".join(loop.watch.calls) == "a" * (2 * 3) + "a" * 3 + "s" * STEPS
    assert loop.records[0].aligner_steps == 3, "the epoch reports its own pass"
