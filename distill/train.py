"""The training loop: aligner and student, online, in either schedule."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from distill.aligner import Aligner
from distill.config import DistillConfig
from distill.devices import Device
from distill.losses.objective import Objective
from distill.orthogonal import retract_all
from distill.stream import Batch, Part, Source, count_batches, iterate_batches
from distill.student import Student
from distill.tokens import TextEncoder
from shared.console import Tracker
from shared.errors import Error

CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on. `student` are the parts of each of the student's batches, `steps` its batches an epoch.

    `aligner` are the labelled rows' vectors; None without a teacher.
    """

    student: tuple[Part, ...]
    steps: int
    aligner: Source | None
    encoder: TextEncoder


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch. The losses are means over its steps: the aligner's, and the student's `total` with its terms."""

    epoch: int
    dev: float
    aligner_dev: float | None
    aligner_loss: float | None
    student: dict[str, float]
    aligner_steps: int
    student_steps: int
    student_rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Scores:
    """How to score after each epoch: the student, and where the teacher answered there too, the aligner."""

    student: Callable[[], float]
    aligner: Callable[[], float] | None


@dataclass(slots=True)
class Trained:
    """The student's weights (of `student.model`) at its best epoch, the first one of equals; and all epochs."""

    best: dict[str, Tensor]
    best_dev: float
    best_epoch: int
    epochs: list[EpochRecord]


def derive_seed(seed: int, *names: object) -> int:
    """A seed of its own for each use, so that what one part draws does not change what another gets."""
    return int.from_bytes(sha256("\0".join(map(str, (seed, *names))).encode()).digest()[:4], "big")


def train(
    config: DistillConfig,
    objective: Objective,
    student: Student,
    aligner: Aligner | None,
    data: Data,
    device: Device,
    scores: Scores,
    tracker: Tracker,
    on_epoch: Callable[[EpochRecord], None],
) -> Trained:
    """Train for `config.epochs` epochs of `data.steps` student steps each.

    two-pass: the aligner passes once over the labelled vectors, then the student once over its batches, the aligner in
    eval mode and without gradient (section 3 of arXiv:2603.10877v1). interleaved: one step of each in turn. In either,
    `config.aligner_pretraining` passes of the aligner come first: the paper speaks of that too.
    Raises Error when a loss is no longer finite.
    """
    total_steps = config.epochs * data.steps
    student_optimizer = torch.optim.AdamW(student.parameters(), lr=config.student_lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(student_optimizer, make_schedule(config, total_steps))
    aligner_optimizer = (
        None if aligner is None else torch.optim.AdamW(aligner.parameters(), lr=config.aligner_lr, fused=True)
    )

    def step_aligner(batch: Batch) -> Tensor:
        assert aligner is not None
        assert aligner_optimizer is not None
        aligner.train()
        loss = objective.aligner_loss(aligner(batch.vectors), batch.target, batch.labelled)
        _step(aligner, aligner_optimizer, loss)
        return loss.detach()

    def step_student(batch: Batch) -> dict[str, Tensor]:
        targets = None
        if aligner is not None:
            aligner.eval()
            with torch.no_grad():
                targets = aligner(batch.vectors)
        with device.autocast():
            outputs = student(batch.inputs)
        terms = objective.student_terms(outputs, targets, batch.target, batch.labelled)
        _step(student, student_optimizer, terms["total"])
        schedule.step()
        return {name: term.detach() for name, term in terms.items()}

    def student_batches(epoch: int) -> Iterator[Batch]:
        for batch in iterate_batches(data.student, data.steps, config.seed, epoch, data.encoder):
            yield batch.to(device.device)

    def aligner_batches(epoch: int, once: bool, use: str = "aligner") -> Iterator[Batch]:
        if data.aligner is None:
            return
        steps = count_batches(data.aligner, config.batch_size) if once else data.steps
        part = Part(data.aligner, config.batch_size, once)
        for batch in iterate_batches([part], steps, derive_seed(config.seed, use), epoch):
            yield batch.to(device.device)

    for pretraining in range(config.aligner_pretraining):
        torch.manual_seed(derive_seed(config.seed, "pretraining", pretraining))
        for batch in aligner_batches(pretraining, once=True, use="pretraining"):
            step_aligner(batch)

    best: Trained | None = None
    epochs: list[EpochRecord] = []
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        # Everything that an epoch draws depends on (seed, epoch) alone.
        torch.manual_seed(derive_seed(config.seed, "aligner pass", epoch))
        aligner_loss = _Mean()
        student_terms: dict[str, _Mean] = {}
        rows = 0
        pending = aligner_batches(epoch, once=config.schedule == "two-pass")
        if config.schedule == "two-pass":
            for batch in pending:
                aligner_loss.add(step_aligner(batch))
        torch.manual_seed(derive_seed(config.seed, "student pass", epoch))
        student.train()
        for batch in student_batches(epoch):
            if (labelled := next(pending, None)) is not None:
                aligner_loss.add(step_aligner(labelled))
            for name, term in step_student(batch).items():
                student_terms.setdefault(name, _Mean()).add(term)
            rows += len(batch.target)
            tracker.advance(1, f"epoch {epoch}/{config.epochs}{_describe(best)}")
        means = {name: mean.value() for name, mean in student_terms.items()}
        if not math.isfinite(means["total"]) or not math.isfinite(aligner_loss.value()):
            raise Error(
                f"the loss is not finite any more in epoch {epoch} ({means}, aligner {aligner_loss.value()}); "
                "lower --student-lr or --aligner-lr. Nothing was written"
            )
        seconds = time.perf_counter() - started
        dev = scores.student()
        record = EpochRecord(
            epoch,
            dev,
            None if scores.aligner is None else scores.aligner(),
            aligner_loss.value() if aligner_loss.count else None,
            means,
            aligner_loss.count,
            data.steps,
            rows,
            seconds,
        )
        epochs.append(record)
        on_epoch(record)
        if best is None or dev > best.best_dev:
            weights = {name: weight.detach().cpu().clone() for name, weight in student.model.state_dict().items()}
            best = Trained(weights, dev, epoch, epochs)
    assert best is not None
    return best


def make_schedule(config: DistillConfig, total_steps: int) -> Callable[[int], float]:
    """The factor of the student's learning rate at each step, from 0 on: up linearly, then level or down linearly."""
    warmup_steps = math.ceil(config.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if config.decay == "linear":
            return (total_steps - step) / max(1, total_steps - warmup_steps)
        return 1.0

    return factor


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
    optimizer.step()
    retract_all(module)


def _describe(best: Trained | None) -> str:
    return "" if best is None else f", best dev {best.best_dev:.4f} (epoch {best.best_epoch})"


class _Mean:
    """A mean that is summed where the values are, so that no step waits for the device."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Any = 0.0

    def add(self, value: Tensor) -> None:
        self._sum = self._sum + value
        self.count += 1

    def value(self) -> float:
        return float(self._sum) / self.count if self.count else 0.0
