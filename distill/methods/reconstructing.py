"""The aligner of a student that writes: trained to reconstruct the teacher's vectors, then frozen."""

from collections.abc import Generator as Batches
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.compute.weights import copy_trained, write_trained
from distill.data.answers import gather_vectors
from distill.data.batches import Batch, BatchPart, RowSource, count_batches
from distill.data.columns import VECTORS
from distill.data.controls import ShuffledTeacher
from distill.data.split import Bools
from distill.data.vectors import VectorColumn, measure_vectors
from distill.losses.reconstruction import Reconstruction
from distill.losses.registry import make_match
from distill.methods.writing import WritingMaterials
from distill.models.aligner import Aligner, check_width
from distill.models.orthogonal import make_optimizer
from distill.training.feed import load_batches
from distill.training.method import Result
from distill.training.progress import Learners, Progress
from distill.training.schedule import EvaluationSchedule
from distill.training.step import derive_seed, take_step

PAPERS_ALPHA = 0.5


@dataclass(frozen=True, slots=True)
class VectorTeacher:
    """The teacher's vectors as a column of batches, the aligner that reconstructs them, and the terms they make."""

    column: VectorColumn
    aligner: Aligner
    terms: Reconstruction

    @property
    def joint_width(self) -> int:
        """Numbers of a projection."""
        return self.aligner.projection.weight.shape[0]

    def standardise(self, vectors: Tensor) -> Tensor:
        """Give vectors as the aligner reconstructs them."""
        return (vectors - self.aligner.mean) / self.aligner.std

    def learn(self, vectors: Tensor, student: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Give the student's terms for a batch; the aligner stays as it is."""
        self.aligner.eval()
        with torch.no_grad():
            outputs = self.aligner(vectors)
        return self.terms.student_terms(self.standardise(vectors), (outputs.projected, outputs.auxiliary), student)


def make_vector_teacher(materials: WritingMaterials) -> VectorTeacher:
    """Make a fresh aligner of the teacher's vectors, or of those of other rows. Raises what gather_vectors does."""
    config, rows, method = materials.config, materials.rows, materials.config.method
    seed = config.training.seed
    own = gather_vectors(rows.answers, rows.train, config.signal.vectors, config.signal.reply_encoder, materials.work)
    check_width(own.width, method.semantics)
    mean, std = measure_vectors(rows.train, own)
    if method.control == "shuffled-teacher":
        own = ShuffledTeacher().swap_vectors(rows.train, own, seed, materials.work)
    torch.manual_seed(derive_seed(seed, "aligner"))
    aligner = Aligner(torch.from_numpy(mean), torch.from_numpy(std), own.width, method.semantics)
    aligner.to(materials.device.device)
    losses = {
        term.name: (make_match(term.name, method.semantics, method.loss_options), term.weight) for term in method.terms
    }
    alpha = PAPERS_ALPHA if method.alpha == "auto" else method.alpha
    terms = Reconstruction(losses=losses, alpha=alpha, beta=method.beta, gamma=method.gamma, tau=method.tau)
    return VectorTeacher(own, aligner, terms)


@dataclass(frozen=True, slots=True)
class ReconstructionPhase:
    """Passes of the aligner over the vectors of the rows that are learnt. Every process does the same."""

    materials: WritingMaterials
    teacher: VectorTeacher
    optimizer: torch.optim.Optimizer
    source: RowSource
    best_module: nn.Module | None = None
    evaluation: EvaluationSchedule = EvaluationSchedule()
    rates: str = "--aligner-lr"

    @classmethod
    def start(cls, materials: WritingMaterials, teacher: VectorTeacher, wanted: Bools) -> "ReconstructionPhase":
        """Make the phase with a fresh optimiser."""
        config = materials.config
        optimizer = make_optimizer(teacher.aligner, config.method.aligner_lr, config.training.weight_decay_on)
        buffer = config.data.buffer_bytes
        source = RowSource(materials.rows.train, {VECTORS: teacher.column}, wanted=wanted, buffer_bytes=buffer)
        return cls(materials, teacher, optimizer, source)

    @property
    def epochs(self) -> int:
        """Passes."""
        return self.materials.config.generative.reconstruction_epochs

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return count_batches(self.source, self.materials.config.training.batch_size)

    @property
    def learners(self) -> Learners:
        """The aligner and its optimiser."""
        return {"aligner": self.teacher.aligner, "aligner_optimizer": self.optimizer}

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        """Do nothing."""
        return ()

    def batches(self, epoch: int, start: int) -> Batches[Batch]:
        """Make the batches of a pass."""
        training, device = self.materials.config.training, self.materials.device
        part = BatchPart(self.source, training.batch_size, once=True)
        seed = derive_seed(training.seed, "reconstruction")
        return load_batches([part], self.steps, seed, epoch, device, start=start)

    def step(self, batch: Batch, epoch: int, index: int) -> Mapping[str, Tensor]:
        """Learn from one batch."""
        self.materials.device.seed(derive_seed(self.materials.config.training.seed, "reconstruction", epoch, index))
        aligner, vectors = self.teacher.aligner, batch.tensor(VECTORS)
        aligner.train()
        outputs = aligner(vectors)
        loss = self.teacher.terms.aligner_loss(self.teacher.standardise(vectors), outputs.main, outputs.auxiliary)
        take_step(aligner, self.optimizer, loss)
        return {"aligner/loss": loss.detach()}

    def score(self) -> Mapping[str, float]:
        """Score nothing: the passes that were asked for are made."""
        return {}

    def finish(self, progress: Progress) -> Result:
        """Give the aligner, its steps and its last loss."""
        last = progress.epochs[-1]
        steps = sum(record.steps for record in progress.epochs)
        return {"aligner": copy_trained(self.teacher.aligner), "steps": steps, "loss": last.terms["aligner/loss"]}


def restore_teacher(teacher: VectorTeacher, result: Result) -> None:
    """Bring the aligner to what ReconstructionPhase.finish gave."""
    write_trained(teacher.aligner, result["aligner"])
