"""The student: built for a run, its batches composed, trained by steps, and saved."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distill.compute.gradients import GradientSums
from distill.compute.weights import collect_trained, write_trained
from distill.data.batches import Batch, BatchPart, RowSource
from distill.data.columns import LABELLED, TARGET, TEXT, VECTORS, BatchColumn
from distill.data.shared_texts import share_texts
from distill.data.split import Bools
from distill.data.tokens import TextColumn
from distill.losses.objective import Objective
from distill.methods.aligning import AlignerTraining
from distill.methods.materials import Materials
from distill.methods.micro_batches import MicroBatches, cut_inputs
from distill.methods.targets import SoftTargets
from distill.models.adapters import halve_frozen
from distill.models.classifier import Student
from distill.models.cpu_kernels import quicken
from distill.models.lower_layers import Lower, keep_outputs, take_lower
from distill.models.orthogonal import make_optimizer
from distill.models.outputs import Outputs
from distill.models.pretrained import check_fits, load_student, save_student
from distill.models.sharded import shard_student, wake
from distill.scoring.predict import predict, predict_aligner, score
from distill.training.feed import load_batches
from distill.training.method import Result
from distill.training.progress import Learners, Progress
from distill.training.schedule import EvaluationSchedule, RateSchedule, TeacherSchedule, space_evaluations
from distill.training.step import derive_seed, end_step
from shared.console import say
from shared.errors import UsageError


@dataclass(frozen=True, slots=True)
class BuiltStudent:
    """A student on its device, and the frozen layers that were taken off it, if any."""

    student: Student
    lower: Lower | None

    def save(self, folder: Path, materials: Materials) -> None:
        """Write student/, whole, and heads.safetensors to a run's folder."""
        if self.lower is not None:
            self.lower.put_back(self.student.model)
        save_student(folder / "student", self.student.model, materials.tokenizer)
        save_weights(self.student.extra_weights(), folder / "heads.safetensors")


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as safetensors takes them."""
    save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, path)


def build_student(materials: Materials, vector_width: int | None) -> BuiltStudent:
    """Build a fresh student, its heads made for the teacher's vectors of that width, if any.

    For one seed its main head is the same in every variant, and P_s and A_s wherever they fit. Raises SourceError.
    """
    device = materials.device
    with device.processes.take_turn():  # a whole student lies in a machine's memory once
        built = _load_built(materials, vector_width)
    if device.processes.shards:
        wake(built.student, device)
    if built.lower is not None and materials.encoder.embed is None:
        keep_lower_outputs(materials, built.lower, built.student)
    return built


def _load_built(materials: Materials, vector_width: int | None) -> BuiltStudent:
    config, device, encoder = materials.config, materials.device, materials.encoder
    seed, wanted = config.training.seed, config.student
    torch.manual_seed(derive_seed(seed, "student"))
    model = load_student(
        materials.found.source,
        materials.outputs,
        materials.rows.manifest.labels,
        wanted.layers,
        wanted.dropout,
        wanted.lora_rank,
        wanted.lora_targets,
        wanted.gradient_checkpointing,
        several_labels=materials.phi == "sigmoid",
    )
    check_fits(model, materials.found.source, materials.tokenizer, encoder.max_length, "--max-length")
    torch.manual_seed(derive_seed(seed, "heads"))
    student = Student(model, config.method.semantics, vector_width)
    model.config.pad_token_id = materials.tokenizer.pad_token_id
    if device.device.type == "cpu":
        quicken(model, encoder.max_length)
    lower = None if wanted.frozen_layers is None else take_lower(model, wanted.frozen_layers, wanted.model)
    if wanted.lora_rank is not None and device.half is not None:
        halve_frozen(model, device.half)
    if device.processes.shards:
        shard_student(student, device)
    student.to(device.device)
    return BuiltStudent(student, lower)


def collect_student(materials: Materials, built: BuiltStudent, vector_width: int | None) -> BuiltStudent:
    """Give a student as one that can be saved: in the first process one built anew, where several share its weights.

    That one lies on the CPU. All processes must call it together; `vector_width` is that of build_student.
    """
    processes = materials.device.processes
    if not processes.shards:
        return built
    whole = None
    if processes.is_first:
        whole = build_student(replace(materials, device=materials.device.move_to_cpu()), vector_width)
    collect_trained(built.student, None if whole is None else whole.student)
    return whole or built


def keep_lower_outputs(materials: Materials, lower: Lower, student: Student) -> None:
    """Compute what the frozen layers give for every text, once, and let the encoder give that in place of tokens."""
    texts = [materials.read_answered_texts(), materials.dev]
    texts += [] if materials.test is None else [materials.test]
    path = (materials.frozen or materials.work) / materials.name_frozen_outputs()
    kept = keep_outputs(path, lower, student.model, texts, materials.encoder, materials.device)
    materials.encoder.embed = kept.pad
    materials.device.processes.wait()  # for all to have opened it
    if materials.frozen is None and materials.device.processes.is_first:
        for made in (path, path.with_suffix(".lock")):
            made.unlink(missing_ok=True)  # the mapping keeps the bytes


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What the student's batches are made of, and how many make an epoch."""

    parts: tuple[BatchPart, ...]
    steps: int

    @property
    def truncated(self) -> int:
        """The texts that were cut, of those that were read so far."""
        texts = (part.source.columns[TEXT] for part in self.parts)
        return sum(column.truncated for column in texts if isinstance(column, TextColumn))


def check_mix(materials: Materials) -> None:
    """Raise UsageError where batches are to mix in unlabelled rows, and there are none."""
    config, rows = materials.config, materials.rows
    mixes = config.training.labelled_per_batch is not None and config.method.sees_unlabelled_rows
    if mixes and not (rows.train.answered & ~rows.visible).any():
        raise UsageError("labelled_per_batch mixes labelled rows with unlabelled ones, and every row has a label")


def plan_batches(materials: Materials, columns: Mapping[str, BatchColumn]) -> BatchPlan:
    """Compose batches of texts and other `columns`; an epoch has as many as all answered rows fill.

    With a teacher they hold all answered rows. Where only labelled rows are of use, those are drawn over and over until
    the student has had as many steps as any other variant.
    """
    training, rows = materials.config.training, materials.rows
    answered, visible, size = rows.train.answered, rows.visible, training.batch_size
    steps = -(-int(answered.sum()) // size)
    if not materials.config.method.sees_unlabelled_rows:
        once = bool((visible == answered).all())
        return BatchPlan((BatchPart(_read_texts(materials, columns, visible), size, once),), steps)
    if training.labelled_per_batch is None:
        return BatchPlan((BatchPart(_read_texts(materials, columns, answered), size, once=True),), steps)
    hidden = answered & ~visible
    labelled = BatchPart(_read_texts(materials, columns, visible), training.labelled_per_batch)
    unlabelled = BatchPart(_read_texts(materials, columns, hidden), size - training.labelled_per_batch)
    return BatchPlan((labelled, unlabelled), steps)


def _read_texts(materials: Materials, columns: Mapping[str, BatchColumn], wanted: Bools) -> RowSource:
    texts, processes = TextColumn(materials.encoder), materials.device.processes
    if processes.count > 1:
        texts = share_texts(materials.rows.train, wanted, materials.encoder, processes, materials.work)
    return materials.read_training({TEXT: texts, **columns}, wanted=wanted)


@dataclass(frozen=True, slots=True)
class StudentBatch:
    """A batch of the student's, and the aligner's that comes before it, where the two take turns."""

    own: Batch
    aligners: Batch | None

    def __len__(self) -> int:
        return len(self.own)


@dataclass(frozen=True, slots=True)
class StudentPhase:
    """The student's training, and the aligner's beside it, where there is one.

    two-pass: the aligner passes once over the labelled vectors, then the student once over its batches, the aligner in
    eval mode and without gradient (section 3 of arXiv:2603.10877v1). interleaved: one step of each in turn. `targets`
    stand in the place of the aligner's soft targets. `answered_dev` are the dev rows that score the aligner.
    """

    materials: Materials
    student: Student
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    sums: GradientSums
    plan: BatchPlan
    objective: Objective
    aligner: AlignerTraining | None = None
    targets: SoftTargets | None = None
    answered_dev: RowSource | None = None
    rates: str = "--student-lr or --aligner-lr"

    @classmethod
    def start(
        cls,
        materials: Materials,
        student: Student,
        objective: Objective,
        aligner: AlignerTraining | None = None,
        targets: SoftTargets | None = None,
        answered_dev: RowSource | None = None,
    ) -> Self:
        """Make the phase with a fresh optimiser, over batches of all that the student learns from."""
        columns: dict[str, BatchColumn] = {} if aligner is None else {VECTORS: aligner.vectors}
        columns |= {} if targets is None else targets.columns
        training = materials.config.training
        optimizer = make_optimizer(student, training.student_lr, training.weight_decay_on)
        plan = plan_batches(materials, columns)
        scaler, sums = materials.device.make_scaler(), GradientSums(student, materials.device.processes)
        return cls(materials, student, optimizer, scaler, sums, plan, objective, aligner, targets, answered_dev)

    @property
    def epochs(self) -> int:
        """Epochs."""
        return self.materials.config.training.epochs

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.plan.steps

    @property
    def evaluation(self) -> EvaluationSchedule:
        """When the dev rows score the student, beside the end of each epoch."""
        training = self.materials.config.training
        every = training.eval_steps
        if every == "auto":
            every = space_evaluations(self.steps, self.materials.dev.rows, training.batch_size)
        return EvaluationSchedule(every, training.patience)

    @property
    def learners(self) -> Learners:
        """The student and the aligner, with their optimisers, and the scale of the loss."""
        aligners = {} if self.aligner is None else self.aligner.learners
        return {
            "student": self.student,
            "student_optimizer": self.optimizer,
            "student_scaler": self.scaler,
            **aligners,
        }

    @property
    def best_module(self) -> nn.Module:
        """What is saved for inference."""
        module: nn.Module = self.student.model
        return module

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        """Let the aligner pass over the labelled vectors, where the schedule has two passes."""
        if self.aligner is not None and self.materials.config.method.schedule == "two-pass":
            for index, batch in enumerate(self.aligner.load_pass("aligner", epoch)):
                yield {"aligner/loss": self.aligner.step(batch, "aligner step", epoch, index)}
            self.materials.device.processes.copy_weights(self.aligner.aligner)

    def batches(self, epoch: int, start: int) -> Generator[StudentBatch]:
        """Make the batches of an epoch from step `start` on."""
        own = load_batches(
            self.plan.parts,
            self.steps,
            self.materials.config.training.seed,
            epoch,
            self.materials.device,
            start=start,
        )
        aligners: Generator[Batch] | None = None
        if self.aligner is not None and self.materials.config.method.schedule == "interleaved":
            aligners = self.aligner.load_steps(epoch, self.steps, start)
        return _pair(own, aligners)

    def step(self, batch: StudentBatch, epoch: int, index: int) -> Mapping[str, Tensor]:
        """Take one step of the student, after one of the aligner where the two take turns."""
        terms: dict[str, Tensor] = {}
        if self.aligner is not None and batch.aligners is not None:
            terms["aligner/loss"] = self.aligner.step(batch.aligners, "aligner step", epoch, index)
        return {**terms, **self._step_student(batch.own, epoch, index)}

    def _step_student(self, batch: Batch, epoch: int, index: int) -> Mapping[str, Tensor]:
        training, method, device = self.materials.config.training, self.materials.config.method, self.materials.device
        done, total = (epoch - 1) * self.steps + index, self.epochs * self.steps
        find_terms = partial(
            self.objective.student_terms,
            teacher=self._find_targets(batch),
            target=batch.tensor(TARGET),
            labelled=batch.tensor(LABELLED),
            strength=TeacherSchedule(method.teacher_decay, total).at(done),
        )
        self.student.train()
        self.optimizer.zero_grad()
        parts = cut_inputs(batch.inputs(), training.micro_batch)
        idle = device.processes.count_idle(len(parts), len(batch), training.micro_batch)
        parts += cut_inputs(batch.inputs(), 1)[:1] * idle
        seeds = [
            derive_seed(training.seed, "student step", epoch, index, device.processes.rank, *([part] if part else []))
            for part in range(len(parts))
        ]
        micro_batches = MicroBatches(self.student, device, self.scaler, self.sums, len(batch), parts, seeds, idle)
        terms = micro_batches.backpropagate(find_terms, compares_rows=method.matches)
        for group in self.optimizer.param_groups:
            group["lr"] = training.student_lr * RateSchedule(training.warmup, training.decay, total).at(done)
        skipped = end_step(self.student, self.optimizer, self.sums, self.scaler)
        return {**{f"student/{name}": term for name, term in terms.items()}, **skipped}

    def _find_targets(self, batch: Batch) -> Outputs | None:
        targets = None if self.targets is None else self.targets.give(batch)
        if self.aligner is None:
            return targets
        aligned = self.aligner.align(batch)
        return aligned if targets is None else replace(aligned, main=targets.main, auxiliary=targets.auxiliary)

    def score(self) -> Mapping[str, float]:
        """Score the student, and the aligner on its own where the teacher answered dev rows."""
        manifest, device = self.materials.rows.manifest, self.materials.device
        scores = {"dev": score(manifest, predict(self.student.model, self.materials.dev, device))}
        if self.aligner is not None and self.answered_dev is not None:
            scores["aligner/dev"] = score(manifest, predict_aligner(self.aligner.aligner, self.answered_dev, device))
        return scores

    def finish(self, progress: Progress) -> Result:
        """Turn to the weights of the best score."""
        assert progress.best is not None, "every epoch is scored"
        write_trained(self.student.model, progress.best.weights)
        if self.plan.truncated:
            say(f"{self.plan.truncated:,} training texts were cut to {self.materials.encoder.max_length} tokens")
        return {}


def _pair(own: Generator[Batch], aligners: Generator[Batch] | None) -> Generator[StudentBatch]:
    with closing(own):
        if aligners is None:
            yield from (StudentBatch(batch, None) for batch in own)
            return
        with closing(aligners):
            for batch in own:
                yield StudentBatch(batch, next(aligners, None))
