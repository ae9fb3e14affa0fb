"""The training loop: aligner and student, online, in either schedule.

What a step draws depends on (seed, epoch, step) alone: the order of rows is a function of (seed, epoch), and torch is
seeded anew before each step. So a run that goes on from a checkpoint of any step comes to the same weights as one that
was never stopped, and no generator's state needs to be kept.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from distill.compute.devices import Device
from distill.config import DistillConfig
from distill.data.batches import Batch, Part, Source, count_batches, iterate_batches, work_ahead
from distill.data.tokens import TextEncoder
from distill.losses.objective import Objective
from distill.models.adapters import read_trained, write_trained
from distill.models.aligner import Aligner
from distill.models.classifier import Student
from distill.models.orthogonal import retract_all
from distill.models.outputs import Outputs
from distill.training.checkpoint import Checkpoints
from shared.console import Tracker
from shared.errors import Error

CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on. `student` are the parts of each of the student's batches, `steps` its batches an epoch.

    `aligner` are the labelled rows' vectors; None where no aligner is trained. `targets` gives soft targets in
    place of the aligner's.
    """

    student: tuple[Part, ...]
    steps: int
    aligner: Source | None
    encoder: TextEncoder
    targets: Callable[[Batch], Outputs] | None = None


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


@dataclass(slots=True)
class Mean:
    """A mean that is summed where the values are, so that no step waits for the device."""

    total: Any = 0.0
    count: int = 0

    def add(self, value: Tensor) -> None:
        """Count one more value."""
        self.total = self.total + value
        self.count += 1

    def value(self) -> float:
        """The mean; 0 of no values."""
        return float(self.total) / self.count if self.count else 0.0


@dataclass(slots=True)
class Progress:
    """How far training is: `step` steps of the student in epoch `epoch`, which starts from 1; and what they gave.

    The losses, `rows` and `seconds` are those of the epoch so far. With the weights and the optimisers' states it is
    all that a checkpoint holds.
    """

    epoch: int = 1
    step: int = 0
    aligner_loss: Mean = field(default_factory=Mean)
    student_terms: dict[str, Mean] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0
    best: Trained | None = None
    epochs: list[EpochRecord] = field(default_factory=list)

    def add_terms(self, terms: dict[str, Tensor]) -> None:
        """Count a step's terms."""
        for name, term in terms.items():
            self.student_terms.setdefault(name, Mean()).add(term.detach())

    def start_epoch(self) -> None:
        """Turn to the next epoch."""
        self.epoch, self.step, self.rows, self.seconds = self.epoch + 1, 0, 0, 0.0
        self.aligner_loss, self.student_terms = Mean(), {}


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
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train for `config.epochs` epochs of `data.steps` student steps each.

    two-pass: the aligner passes once over the labelled vectors, then the student once over its batches, the aligner in
    eval mode and without gradient (section 3 of arXiv:2603.10877v1). interleaved: one step of each in turn. In either,
    `config.aligner_pretraining` passes of the aligner come first: the paper speaks of that too.

    `checkpoints` are written, and training goes on from the one that is there. `on_epoch` is called for every epoch,
    first for those that the checkpoint knows. Raises Error when a loss is no longer finite.
    """
    factor = make_schedule(config, config.epochs * data.steps)
    strength = make_teacher_schedule(config, config.epochs * data.steps)
    processes = device.processes
    trainable = [weight for weight in student.parameters() if weight.requires_grad]
    student_optimizer = torch.optim.AdamW(trainable, lr=config.student_lr, fused=True)
    aligner_optimizer = None if aligner is None else make_aligner_optimizer(config, aligner)
    progress = Progress()
    trained: dict[str, Any] = {"student": student, "student_optimizer": student_optimizer}
    if aligner is not None:
        trained |= {"aligner": aligner, "aligner_optimizer": aligner_optimizer}
    for module in (student, aligner):
        if module is not None:
            processes.copy_weights(module)

    def step_aligner(batch: Batch, step: int) -> None:
        assert aligner is not None
        assert aligner_optimizer is not None
        device.seed(derive_seed(config.seed, "aligner step", progress.epoch, step))
        progress.aligner_loss.add(_step_aligner(objective, aligner, aligner_optimizer, batch))

    def step_student(batch: Batch, step: int) -> None:
        device.seed(derive_seed(config.seed, "student step", progress.epoch, step, processes.rank))
        targets = None if data.targets is None else data.targets(batch)
        if aligner is not None:
            aligner.eval()
            with torch.no_grad():
                aligned: Outputs = aligner(batch.vectors)
            targets = aligned if targets is None else replace(aligned, main=targets.main, auxiliary=targets.auxiliary)
        student.train()
        with device.autocast():
            outputs = student(batch.inputs)
        outputs = processes.gather_outputs(outputs, len(batch.target))
        done = (progress.epoch - 1) * data.steps + step
        terms = objective.student_terms(outputs, targets, batch.target, batch.labelled, strength(done))
        for group in student_optimizer.param_groups:
            group["lr"] = config.student_lr * factor(done)
        _step(student, student_optimizer, terms["total"], device)
        progress.add_terms(terms)
        progress.rows += len(batch.target)

    def aligner_batches(start: int = 0) -> Iterator[Batch]:
        if data.aligner is None:
            return iter(())
        once = config.schedule == "two-pass"
        return load_batches(
            [Part(data.aligner, config.batch_size, once)],
            count_batches(data.aligner, config.batch_size) if once else data.steps,
            derive_seed(config.seed, "aligner"),
            progress.epoch,
            device,
            start=start,
        )

    state = None if checkpoints is None else checkpoints.load()
    if state is not None:
        progress = restore(state, trained)
        for record in progress.epochs:
            on_epoch(record)
        tracker.advance((progress.epoch - 1) * data.steps + progress.step)
    elif aligner is not None and aligner_optimizer is not None and data.aligner is not None:
        for index in range(config.aligner_pretraining):
            pass_aligner(config, objective, aligner, aligner_optimizer, data.aligner, device, index)

    while progress.epoch <= config.epochs:
        started = time.perf_counter() - progress.seconds
        two_pass = config.schedule == "two-pass"
        if two_pass and progress.step == 0:
            for step, batch in enumerate(aligner_batches()):
                step_aligner(batch, step)
            if aligner is not None:
                processes.copy_weights(aligner)
        labelled_batches = iter(()) if two_pass else aligner_batches(progress.step)
        student_batches = load_batches(
            data.student, data.steps, config.seed, progress.epoch, device, data.encoder, start=progress.step
        )
        with closing(student_batches):
            for batch in student_batches:
                if (labelled := next(labelled_batches, None)) is not None:
                    step_aligner(labelled, progress.step)
                step_student(batch, progress.step)
                progress.step += 1
                tracker.advance(1, f"epoch {progress.epoch}/{config.epochs}{_describe(progress.best)}")
                if checkpoints is not None and checkpoints.is_due((progress.epoch - 1) * data.steps + progress.step):
                    progress.seconds = time.perf_counter() - started
                    checkpoints.save(capture(progress, trained))
        means = {name: mean.value() for name, mean in progress.student_terms.items()}  # waits for the device
        progress.seconds = time.perf_counter() - started
        if not math.isfinite(means["total"]) or not math.isfinite(progress.aligner_loss.value()):
            if checkpoints is not None:
                checkpoints.remove()
            raise Error(
                f"the loss is not finite any more in epoch {progress.epoch} ({means}, "
                f"aligner {progress.aligner_loss.value()}); lower --student-lr or --aligner-lr. Nothing was written"
            )
        record = EpochRecord(
            progress.epoch,
            scores.student(),
            None if scores.aligner is None else scores.aligner(),
            progress.aligner_loss.value() if progress.aligner_loss.count else None,
            means,
            progress.aligner_loss.count,
            data.steps,
            progress.rows,
            progress.seconds,
        )
        progress.epochs.append(record)
        on_epoch(record)
        if progress.best is None or record.dev > progress.best.best_dev:
            weights = {name: w.detach().cpu().clone() for name, w in read_trained(student.model).items()}
            progress.best = Trained(weights, record.dev, record.epoch, progress.epochs)
        progress.start_epoch()
    assert progress.best is not None
    return progress.best


def load_batches(
    parts: Sequence[Part],
    steps: int,
    seed: int,
    epoch: int,
    device: Device,
    encoder: TextEncoder | None = None,
    *,
    start: int = 0,
) -> Generator[Batch]:
    """iterate_batches in a thread of its own, and each batch on the device."""
    made = iterate_batches(parts, steps, seed, epoch, encoder, start=start, share=device.processes.share)
    if device.device.type == "cuda":
        made = (batch.pin() for batch in made)
    with closing(work_ahead(made)) as batches:
        for batch in batches:
            yield batch.to(device.device)


def capture(progress: Progress, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What `restore` needs: tensors and plain values. `trained` are the modules and optimisers, by name."""
    best = progress.best
    return {
        **{name: read_trained(p) if isinstance(p, nn.Module) else p.state_dict() for name, p in trained.items()},
        "progress": {
            "epoch": progress.epoch,
            "step": progress.step,
            "aligner_loss": (progress.aligner_loss.total, progress.aligner_loss.count),
            "student_terms": {name: (mean.total, mean.count) for name, mean in progress.student_terms.items()},
            "rows": progress.rows,
            "seconds": progress.seconds,
            "epochs": [asdict(record) for record in progress.epochs],
            "best": None if best is None else {"weights": best.best, "dev": best.best_dev, "epoch": best.best_epoch},
        },
    }


def restore(state: Mapping[str, Any], trained: Mapping[str, Any]) -> Progress:
    """Bring modules and optimisers to a captured state, and give the progress that goes with it."""
    for name, part in trained.items():
        if isinstance(part, nn.Module):
            write_trained(part, state[name])
        else:
            part.load_state_dict(state[name])
    kept = state["progress"]
    epochs = [EpochRecord(**record) for record in kept["epochs"]]
    best = kept["best"]
    return Progress(
        kept["epoch"],
        kept["step"],
        Mean(*kept["aligner_loss"]),
        {name: Mean(*mean) for name, mean in kept["student_terms"].items()},
        kept["rows"],
        kept["seconds"],
        None if best is None else Trained(best["weights"], best["dev"], best["epoch"], epochs),
        epochs,
    )


def make_aligner_optimizer(config: DistillConfig, aligner: Aligner) -> torch.optim.Optimizer:
    """The aligner's optimiser."""
    return torch.optim.AdamW(aligner.parameters(), lr=config.aligner_lr, fused=True)


def pass_aligner(
    config: DistillConfig,
    objective: Objective,
    aligner: Aligner,
    optimizer: torch.optim.Optimizer,
    rows: Source,
    device: Device,
    index: int,
) -> int:
    """Let the aligner pass once over labelled vectors, outside any epoch; `index` numbers such passes.

    Gives the number of its steps.
    """
    steps = count_batches(rows, config.batch_size)
    seed = derive_seed(config.seed, "pretraining")
    for step, batch in enumerate(load_batches([Part(rows, config.batch_size, once=True)], steps, seed, index, device)):
        device.seed(derive_seed(config.seed, "pretraining step", index, step))
        _step_aligner(objective, aligner, optimizer, batch)
    return steps


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


def make_teacher_schedule(config: DistillConfig, total_steps: int) -> Callable[[int], float]:
    """The factor of the teacher's weights, alpha and beta, at each step, from 0 on: 1 at first, near 0 at last."""

    def strength(step: int) -> float:
        if config.teacher_decay == "linear":
            return 1 - step / total_steps
        if config.teacher_decay == "cosine":
            return (1 + math.cos(math.pi * step / total_steps)) / 2
        return 1.0

    return strength


def _step_aligner(objective: Objective, aligner: Aligner, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    """One step, the same in every process: all hold the whole batch's vectors."""
    aligner.train()
    loss = objective.aligner_loss(aligner(batch.vectors), batch.target, batch.labelled)
    _step(aligner, optimizer, loss)
    return loss.detach()


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, device: Device | None = None) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if device is not None:
        device.processes.sum_gradients(module)
    nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
    optimizer.step()
    retract_all(module)


def _describe(best: Trained | None) -> str:
    return "" if best is None else f", best dev {best.best_dev:.4f} (epoch {best.best_epoch})"
