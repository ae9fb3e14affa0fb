"""The training of a student that writes: its batches, and its steps."""

from collections.abc import Generator as Batches
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from distill.compute.gradients import GradientSums
from distill.compute.weights import write_trained
from distill.data.batches import Batch, BatchPart, RowSource
from distill.data.columns import VECTORS, BatchColumn
from distill.data.dialogues import DialogueColumn
from distill.data.sequences import OF_REPLIES, PLACES
from distill.data.usable import UsableRows, choose_rows
from distill.data.vectors import VectorColumn
from distill.losses.tokens import LossSums, TokenTargets, sum_losses
from distill.methods.reconstructing import VectorTeacher
from distill.methods.writing import WritingMaterials, name_rule
from distill.methods.writing_scores import WritingScores
from distill.models.generator import Generator, pool_hidden
from distill.models.orthogonal import make_optimizer
from distill.training.feed import load_batches
from distill.training.method import Result
from distill.training.progress import Learners, Progress
from distill.training.schedule import EvaluationSchedule, RateSchedule
from distill.training.step import derive_seed, end_step
from shared.answers import find_rule
from shared.console import say
from shared.errors import DataError

OF_TOP = ("topk", "tail")  # the terms that a teacher's top K is needed for


@dataclass(frozen=True, slots=True)
class DialoguePlan:
    """The rows that are learnt, the batches that they make, and how many of those are an epoch."""

    usable: UsableRows
    columns: Mapping[str, DialogueColumn]
    part: BatchPart
    steps: int


def plan_dialogues(materials: WritingMaterials, vectors: VectorColumn | None = None) -> DialoguePlan:
    """Choose the rows that are learnt, and compose batches of them.

    An epoch has as many batches as all answered rows fill, whatever is learnt of them: fewer rows are drawn over and
    over, so that all variants take as many steps. Raises DataError where no row is left.
    """
    config, rows = materials.config, materials.rows
    columns = materials.make_columns()
    answered = rows.train.answered
    asked = answered & rows.visible if "reference" in columns else answered
    if "reply" not in columns:
        asked = asked & rows.train.first
    rule_name = name_rule(rows.manifest)
    rule = find_rule(rule_name) if rule_name is not None and "reply" in columns else None
    wanted = config.generative
    usable = choose_rows(rows.train, list(columns.values()), asked, rule, wanted.only, wanted.pick)
    say(f"{rows.manifest.task}: {usable}")
    if not usable.wanted.any():
        raise DataError(f"no row of {rows.folder} is left to learn from: {usable}")
    both: dict[str, BatchColumn] = {**columns, **({} if vectors is None else {VECTORS: vectors})}
    source = RowSource(rows.train, both, wanted=usable.wanted, buffer_bytes=config.data.buffer_bytes)
    size = config.training.batch_size
    steps = -(-int(answered.sum()) // size) if config.method.traits.trains_student else 0
    return DialoguePlan(usable, columns, BatchPart(source, size, once=source.rows == int(answered.sum())), steps)


@dataclass(frozen=True, slots=True)
class WriterPhase:
    """The student's training.

    Every loss is a sum over tokens, divided by the tokens of the whole batch, whatever part of it is computed at a
    time, and in which process.
    """

    materials: WritingMaterials
    student: Generator
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    sums: GradientSums
    plan: DialoguePlan
    scores: WritingScores
    teacher: VectorTeacher | None = None
    rates: str = "--student-lr"

    @classmethod
    def start(
        cls,
        materials: WritingMaterials,
        student: Generator,
        plan: DialoguePlan,
        scores: WritingScores,
        teacher: VectorTeacher | None = None,
    ) -> Self:
        """Make the phase with a fresh optimiser."""
        training = materials.config.training
        optimizer = make_optimizer(student, training.student_lr, training.weight_decay_on)
        scaler, sums = materials.device.make_scaler(), GradientSums(student, materials.device.processes)
        return cls(materials, student, optimizer, scaler, sums, plan, scores, teacher)

    @property
    def epochs(self) -> int:
        """Epochs; of a student that is not trained one without a step, after which it is scored."""
        return self.materials.config.training.epochs if self.steps else 1

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.plan.steps

    @property
    def evaluation(self) -> EvaluationSchedule:
        """When the dev rows score it beside the end of each epoch: where steps were named only, for it takes long."""
        training = self.materials.config.training
        every = training.eval_steps
        return EvaluationSchedule(every if isinstance(every, int) else None, training.patience)

    @property
    def learners(self) -> Learners:
        """The student and its optimiser, and the scale of the loss."""
        return {"student": self.student, "student_optimizer": self.optimizer, "student_scaler": self.scaler}

    @property
    def best_module(self) -> nn.Module:
        """What is saved for inference."""
        module: nn.Module = self.student.model
        return module

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        """Do nothing."""
        return ()

    def batches(self, epoch: int, start: int) -> Batches[Batch]:
        """Make the batches of an epoch from step `start` on."""
        seed = self.materials.config.training.seed
        return load_batches([self.plan.part], self.steps, seed, epoch, self.materials.device, start=start)

    def step(self, batch: Batch, epoch: int, index: int) -> Mapping[str, Tensor]:
        """Take one step, of parts of the batch one after the other where it is not computed at once."""
        training, device = self.materials.config.training, self.materials.device
        device.seed(derive_seed(training.seed, "student step", epoch, index, device.processes.rank))
        self.student.train()
        self.optimizer.zero_grad()
        terms: dict[str, Tensor] = {}
        parts = [(name, *part) for name in self.plan.columns for part in self._cut(name, batch)]
        for number, (name, piece, counts) in enumerate(parts, start=1):
            if number == len(parts):
                self.sums.begin_last()
            for term, value in self._learn(name, piece, batch, counts=counts).items():
                terms[term] = terms[term] + value if term in terms else value
        total = self.epochs * self.steps
        factor = RateSchedule(training.warmup, training.decay, total).at((epoch - 1) * self.steps + index)
        for group in self.optimizer.param_groups:
            group["lr"] = training.student_lr * factor
        skipped = end_step(self.student, self.optimizer, self.sums, self.scaler)
        values = device.processes.add(torch.stack(list(terms.values())))
        return {**{f"student/{name}": value for name, value in zip(terms, values, strict=True)}, **skipped}

    def _cut(self, name: str, batch: Batch) -> Iterator[tuple[Mapping[str, Tensor], bool]]:
        """Cut a column's dialogues into parts, and tell which count: not those computed so that all take part.

        A row may be another process's; and where the student's weights are shared, all compute equally many parts.
        """
        processes, most = self.materials.device.processes, self.materials.config.training.micro_batch
        inputs = batch.inputs(name)
        pieces = cut_batch(inputs, most)
        yield from ((piece, processes.rank < len(batch)) for piece in pieces)
        for _ in range(processes.count_idle(len(pieces), len(batch), most)):
            yield cut_batch(inputs, 1)[0], False

    def _learn(self, name: str, inputs: Mapping[str, Tensor], batch: Batch, *, counts: bool) -> dict[str, Tensor]:
        """Go back from the terms of one column's dialogues; give them, each a mean over its tokens of the batch.

        What does not count has no gradient, and terms of 0.
        """
        weights = self.materials.weights
        tokens, with_top = inputs["counts"].clamp(min=1).float() * (1 if counts else torch.inf)
        weighed_tokens = inputs["weighed"] * (1 if counts else torch.inf)
        weighed = {term: weights.get(term, 0.0) for term in (name, *(OF_TOP if name == "reply" else ()))}
        shares = (weighed[name] / weighed_tokens, *(weighed.get(term, 0.0) / with_top for term in OF_TOP))
        with self.materials.device.autocast():
            hidden = self.student(inputs["input_ids"], inputs["attention_mask"])
            read = hidden.flatten(0, 1)[inputs[PLACES]]
            # Scaled before, and not after: sum_losses takes the head's gradients itself, which are of 16 bits there.
            targets = make_targets(inputs, *self.scaler.scale(shares))
            sums: LossSums = sum_losses(read, self.student.head, targets, self.materials.config.generative.divergence)
        with_vectors = self.teacher is not None and name == next(iter(self.plan.columns))
        vectors = self._match(hidden, inputs, batch) if with_vectors else {}
        total = sums.total
        found = {"total": total.detach() / self.scaler.scale(torch.ones_like(total))}
        if vectors:
            processes = self.materials.device.processes.count  # each of which has the terms of the whole batch
            total = total + self.scaler.scale(weights["vectors"] * vectors["vectors"])
            found |= {term: value.detach() / processes for term, value in vectors.items()}
            found["total"] = found["total"] + weights["vectors"] * found["vectors"]
        torch.autograd.backward(total)
        means = {name: sums.nll / tokens, "topk": sums.divergence / with_top, "tail": sums.tail / with_top}
        return found | {term: means[term] for term, weight in weighed.items() if weight}

    def _match(self, hidden: Tensor, inputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Give the terms of the vectors of a batch, all processes' rows together."""
        assert self.teacher is not None
        assert self.student.heads is not None
        pooling = self.materials.config.generative.pooling
        pooled = pool_hidden(hidden.float(), inputs["prompt_lengths"], inputs["lengths"], pooling)
        projected, reconstructed = self.materials.device.processes.gather_all(self.student.heads(pooled), len(batch))
        return self.teacher.learn(batch.tensor(VECTORS), (projected, reconstructed))

    def score(self) -> Mapping[str, float]:
        """Score the student on the dev rows, as many as choose the best weights."""
        return {"dev": self.scores.score_dev()}

    def finish(self, progress: Progress) -> Result:
        """Turn to the best weights."""
        assert progress.best is not None, "every epoch is scored"
        write_trained(self.student.model, progress.best.weights)
        return {}


def make_targets(
    inputs: Mapping[str, Tensor], nll_weight: Tensor, top_weight: Tensor, tail_weight: Tensor
) -> TokenTargets:
    """Make what a batch of dialogues is held to, each token with its share in the means over all.

    `tail` counts only where the teacher's own K lack the token, whatever distribution is learnt there.
    """
    has_top = inputs["has_top"]
    return TokenTargets(
        inputs["said"],
        inputs["weights"] * nll_weight,
        inputs["top_ids"],
        inputs["top_logprobs"],
        inputs["tail"],
        has_top * top_weight,
        has_top * ~inputs["named"] * tail_weight,
    )


def cut_batch(inputs: Mapping[str, Tensor], rows: int | None) -> list[Mapping[str, Tensor]]:
    """Cut a batch of dialogues into parts of so many rows; `counts` and `weighed` stay those of all."""
    count, width = inputs["input_ids"].shape
    if rows is None or rows >= count:
        return [inputs]
    pieces: list[Mapping[str, Tensor]] = []
    for start in range(0, count, rows):
        end = min(start + rows, count)
        here = (inputs["row"] >= start) & (inputs["row"] < end)
        longest = int(inputs["lengths"][start:end].max())
        by_row = {name: inputs[name][start:end] for name in ("prompt_lengths", "lengths")}
        by_place = {name: inputs[name][:, :longest][start:end] for name in ("input_ids", "attention_mask")}
        by_token = {name: inputs[name][here] for name in ("said", *OF_REPLIES)}
        row = inputs["row"][here] - start
        places = row * longest + inputs[PLACES][here] % width
        of_all = {name: inputs[name] for name in ("counts", "weighed")}
        pieces.append({**by_row, **by_place, **by_token, **of_all, "row": row, PLACES: places})
    return pieces
