"""The aligner: made of the teacher's vectors, trained on the labelled ones, and scored on its own."""

from collections.abc import Generator, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.compute.devices import Device
from distill.compute.weights import copy_trained, write_trained
from distill.data.answers import gather_vectors, join_teachers
from distill.data.batches import Batch, BatchPart, RowSource, count_batches
from distill.data.columns import LABELLED, TARGET, VECTORS, label_columns
from distill.data.controls import TeacherSwap
from distill.data.run_rows import mark_scored
from distill.data.split import Split
from distill.data.vectors import VectorColumn, measure_vectors
from distill.losses.objective import Objective
from distill.methods.materials import Materials
from distill.models.aligner import Aligner, check_width
from distill.models.orthogonal import make_optimizer
from distill.models.outputs import Outputs
from distill.training.feed import load_batches
from distill.training.method import Result
from distill.training.progress import Learners, Progress
from distill.training.schedule import EvaluationSchedule
from distill.training.step import derive_seed, take_step
from shared.console import say
from shared.errors import DataError, ShardError


@dataclass(frozen=True, slots=True)
class AlignerTraining:
    """An aligner, its optimiser, and the labelled rows that it learns from; None where it stays as it is.

    `vectors` are what it reads: the teacher's own, or what a control puts in their place.
    """

    aligner: Aligner
    optimizer: torch.optim.Optimizer
    objective: Objective
    vectors: VectorColumn
    rows: RowSource | None
    batch_size: int
    seed: int
    device: Device

    @property
    def learners(self) -> Learners:
        """What a step changes."""
        return {"aligner": self.aligner, "aligner_optimizer": self.optimizer}

    @property
    def pass_steps(self) -> int:
        """Steps of a pass over the labelled rows."""
        return 0 if self.rows is None else count_batches(self.rows, self.batch_size)

    def load_pass(self, use: str, epoch: int, start: int = 0) -> Generator[Batch]:
        """Give the batches of a pass over the labelled rows, in an order of this `use` and epoch."""
        parts = [] if self.rows is None else [BatchPart(self.rows, self.batch_size, once=True)]
        yield from load_batches(parts, self.pass_steps, derive_seed(self.seed, use), epoch, self.device, start=start)

    def load_steps(self, epoch: int, steps: int, start: int) -> Generator[Batch]:
        """Give as many batches as there are `steps`, of labelled rows over and over; none where it stays as it is."""
        if self.rows is not None:
            parts = [BatchPart(self.rows, self.batch_size)]
            yield from load_batches(parts, steps, derive_seed(self.seed, "aligner"), epoch, self.device, start=start)

    def step(self, batch: Batch, use: str, epoch: int, index: int) -> Tensor:
        """Learn from one batch, and give the loss. Every process does the same: all hold the whole batch's vectors."""
        self.device.seed(derive_seed(self.seed, use, epoch, index))
        self.aligner.train()
        outputs = self.aligner(batch.tensor(VECTORS))
        loss = self.objective.aligner_loss(outputs, batch.tensor(TARGET), batch.tensor(LABELLED))
        take_step(self.aligner, self.optimizer, loss)
        return loss.detach()

    def align(self, batch: Batch) -> Outputs:
        """Give the targets of a batch, without dropout and without a gradient."""
        self.aligner.eval()
        with torch.no_grad():
            outputs: Outputs = self.aligner(batch.tensor(VECTORS))
        return outputs


def make_aligner(
    materials: Materials, objective: Objective, swap: TeacherSwap | None = None, *, learns: bool = True
) -> AlignerTraining:
    """Make a fresh aligner of the teacher's vectors, or of those that `swap` puts in their place.

    Raises what gather_vectors and measure_vectors do, and UsageError for vectors too wide for the semantics.
    """
    config, rows, device = materials.config, materials.rows, materials.device
    seed = config.training.seed
    own = gather_vectors(rows.answers, rows.train, config.signal.vectors, config.signal.reply_encoder, materials.work)
    check_width(own.width, config.method.semantics)
    mean, std = measure_vectors(rows.train, own)
    vectors = own if swap is None else swap.swap_vectors(rows.train, own, seed, materials.work)
    torch.manual_seed(derive_seed(seed, "aligner"))
    aligner = Aligner(torch.from_numpy(mean), torch.from_numpy(std), materials.outputs, config.method.semantics)
    aligner.to(device.device)
    labelled = materials.read_training({VECTORS: vectors}, wanted=rows.visible) if learns else None
    optimizer = make_optimizer(aligner, config.method.aligner_lr, config.training.weight_decay_on)
    return AlignerTraining(aligner, optimizer, objective, vectors, labelled, config.training.batch_size, seed, device)


def find_answered(materials: Materials, split: Split, aligner: AlignerTraining) -> RowSource | None:
    """Give the labelled rows of a scored split that the teacher answered; None where the aligner cannot read them."""
    if not (split.labelled & split.answered).any():
        return None
    signal = materials.config.signal
    try:
        rows, answers = join_teachers(materials.rows.teachers, split)
        own = gather_vectors(answers, rows, signal.vectors, signal.reply_encoder, materials.work)
        if own.widths != aligner.vectors.widths:
            return None
        measure_vectors(rows, own)
    except (DataError, ShardError) as error:
        say(f"the aligner is not scored on its own: {error}")
        return None
    answered = mark_scored(rows) & rows.answered
    columns = {VECTORS: own, **label_columns(rows, visible=answered)}
    return RowSource(rows, columns, wanted=answered, buffer_bytes=materials.config.data.buffer_bytes)


@dataclass(frozen=True, slots=True)
class AlignerPhase:
    """Passes of the aligner over the labelled vectors, before a student is trained."""

    training: AlignerTraining
    epochs: int
    best_module: None = None
    evaluation: EvaluationSchedule = EvaluationSchedule()
    rates: str = "--aligner-lr"

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return self.training.pass_steps

    @property
    def learners(self) -> Learners:
        """What a step changes."""
        return self.training.learners

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        """Do nothing."""
        return ()

    def batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Make the batches of a pass."""
        return self.training.load_pass("pretraining", epoch - 1, start)

    def step(self, batch: Batch, epoch: int, index: int) -> Mapping[str, Tensor]:
        """Learn from one batch."""
        return {"aligner/loss": self.training.step(batch, "pretraining step", epoch - 1, index)}

    def score(self) -> Mapping[str, float]:
        """Score nothing: the passes that were asked for are made."""
        return {}

    def finish(self, progress: Progress) -> Result:
        """Give the aligner and its optimiser."""
        training = self.training
        return {"aligner": copy_trained(training.aligner), "optimizer": deepcopy(training.optimizer.state_dict())}


def restore_aligner(training: AlignerTraining, result: Result) -> None:
    """Bring an aligner and its optimiser to what AlignerPhase.finish gave."""
    write_trained(training.aligner, result["aligner"])
    training.optimizer.load_state_dict(result["optimizer"])
