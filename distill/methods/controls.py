"""The controls and baselines: what each puts in the teacher's place, and how it makes the method.

Their traits are in distill.controls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from distill.compute.weights import write_trained
from distill.config import DistillConfig
from distill.controls import Control
from distill.data.answers import gather_distributions
from distill.data.columns import VECTORS, Array
from distill.data.controls import ConstantTeacher, DrawnTeacher, ShuffledTeacher, TeacherSwap
from distill.data.distributions import measure_mass, read_label_logprobs
from distill.losses.objective import make_objective
from distill.methods.aligning import AlignerPhase, AlignerTraining, make_aligner
from distill.methods.armada import Armada
from distill.methods.baselines import ProbeMethod, PseudoLabelled
from distill.methods.head_method import HeadArmada, HeadSmoothed
from distill.methods.heads import make_head
from distill.methods.materials import Materials
from distill.methods.students import StudentPhase, build_student
from distill.methods.targets import RowTargets, SmoothedLabels, keep_targets, smooth_like
from distill.phi import Phi
from distill.scoring.predict import predict, predict_aligner
from distill.training.method import Method, Phase, Result
from distill.training.progress import Progress
from distill.training.step import derive_seed
from shared.console import say

SMOOTHING, FIRST_STUDENT = "smoothing", "first student"
_NORMALISE: Mapping[Phi, Callable[[Tensor], Tensor]] = {  # soft targets of what a student says
    "softmax": partial(functional.log_softmax, dim=1),
    "sigmoid": torch.detach,
    "identity": torch.detach,
}


class ControlMethod(Protocol):
    """Makes the method of a control."""

    def make(self, materials: Materials) -> Method:
        """Make the method. Raises what reading the teacher's answers does, and SourceError for the student."""


@dataclass(frozen=True, slots=True)
class SwappedTeacher:
    """ARMADA as it is, with the teacher's answers as they are or with those that `swap` puts in their place.

    Where it does not let the aligner learn, that stays as the seed made it.
    """

    swap: TeacherSwap | None = None
    aligner_learns: bool = True

    def make(self, materials: Materials) -> Armada:
        """Make ARMADA."""
        config = materials.config.method
        head = make_head(materials, self.swap) if config.uses_head else None
        targets: RowTargets | None = None
        if config.soft == "kl":
            targets = keep_targets(materials.rows.train, read_distributions(materials, self.swap))
        aligner = None
        if config.uses_aligner:
            objective = make_objective(config, materials.phi)
            aligner = make_aligner(materials, objective, self.swap, learns=self.aligner_learns)
        return Armada(materials, aligner, targets) if head is None else HeadArmada(materials, head, aligner)


def read_distributions(materials: Materials, swap: TeacherSwap | None = None) -> Array:
    """Read the teacher's own label distributions of the training rows: see read_label_logprobs."""
    rows, seed = materials.rows, materials.config.training.seed
    parts = gather_distributions(rows.answers, rows.train, materials.outputs, materials.work)
    logprobs = read_label_logprobs(rows.train, parts, materials.work, swap, seed, phi=materials.phi)
    if materials.phi == "softmax":
        say(f"the teacher put {1 - measure_mass(logprobs):.1%} on no label; rows weigh as their rest")
    return logprobs


# --- label smoothing, matched in entropy ---


@dataclass(frozen=True, slots=True)
class LabelSmoothing:
    """Soft targets are the smoothed labels, as uncertain in the mean as the teacher's would be; there is no L_m."""

    def make(self, materials: Materials) -> Method:
        """Make ARMADA without an aligner; where the soft targets would be an aligner's or a head's, after that."""
        config = materials.config.method
        if config.uses_head:
            return HeadSmoothed(materials, make_head(materials))
        if config.soft == "kl":
            targets = smooth_like(read_distributions(materials), config.tau, materials.phi)
            method = Armada(materials, targets=targets)
            method.first_phase = {"entropy": targets.entropy, "smoothing": targets.smoothing}
            return method
        aligner = make_aligner(materials, make_objective(config, materials.phi))
        return SmoothedArmada(materials, aligner)


class SmoothedArmada(Armada):
    """ARMADA with smoothed labels, after an aligner was trained whose soft targets' entropy they get."""

    def __init__(self, materials: Materials, measured: AlignerTraining) -> None:
        super().__init__(materials)
        self._measured = measured

    @property
    def phases(self) -> tuple[str, ...]:
        """The aligner's passes, as many as a run of two passes an epoch makes, and the student."""
        return (SMOOTHING, *super().phases)

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        """Make a phase, given the results of those before it."""
        if name == SMOOTHING:
            config = self.materials.config
            return SmoothingPhase(
                self._measured, config.method.aligner_pretraining + config.training.epochs, materials=self.materials
            )
        self.first_phase = dict(results[SMOOTHING])
        self.targets = SmoothedLabels(
            self.materials.outputs,
            self.first_phase["smoothing"],
            self.first_phase["entropy"],
            self.materials.config.method.tau,
            self.materials.phi,
        )
        return super().make_phase(name, results)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothingPhase(AlignerPhase):
    """Passes of an aligner, after which the mean entropy of its soft targets over all answered rows is measured."""

    materials: Materials

    def finish(self, progress: Progress) -> Result:
        """Give the steps, the mean `entropy` in nats at tau, and the `smoothing` that gives it."""
        vectors = {VECTORS: self.training.vectors}
        answered = self.materials.read_training(vectors, wanted=self.materials.rows.train.answered)
        said = predict_aligner(self.training.aligner, answered, self.training.device)
        fitted = smooth_like(said.logits, self.materials.config.method.tau, self.materials.phi)
        steps = sum(record.steps for record in progress.epochs)
        return {"aligner_steps": steps, "entropy": fitted.entropy, "smoothing": fitted.smoothing}


# --- self-training ---


@dataclass(frozen=True, slots=True)
class SelfTraining:
    """Soft targets are what a student says that was trained on the labels alone; there is no L_m, and no teacher."""

    def make(self, materials: Materials) -> Method:
        """Make ARMADA without an aligner, after a first student."""
        return SelfTrained(materials)


class SelfTrained(Armada):
    """ARMADA without an aligner, whose soft targets are a first student's.

    Source of the method: Furlanello et al. (2018), with one generation.
    """

    @property
    def phases(self) -> tuple[str, ...]:
        """The first student and the one that is kept."""
        return (FIRST_STUDENT, *super().phases)

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        """Make a phase, given the results of those before it."""
        if name == FIRST_STUDENT:
            alone = replace(self.materials, config=leave_teacher_out(self.materials.config))
            student = build_student(alone, None).student
            return FirstStudentPhase.start(alone, student, make_objective(alone.config.method, alone.phi))
        first = results[FIRST_STUDENT]
        self.first_phase = {"student_steps": first["student_steps"], "dev_best": first["dev_best"]}
        self.targets = keep_targets(self.materials.rows.train, first["targets"].numpy())
        return super().make_phase(name, results)


def leave_teacher_out(config: DistillConfig) -> DistillConfig:
    """Give the config of the first student: another seed, and the labels alone."""
    training = replace(config.training, seed=derive_seed(config.training.seed, "first student"))
    method = replace(config.method, control="none", loss=("none",), alpha=0.0, soft="auto")
    return replace(config, training=training, method=method)


class FirstStudentPhase(StudentPhase):
    """The training of a student that then labels all answered rows."""

    def finish(self, progress: Progress) -> Result:
        """Give what it says of the rows: natural log-probabilities, or values of a regression; 4 bytes each."""
        assert progress.best is not None, "every epoch is scored"
        write_trained(self.student.model, progress.best.weights)
        said = predict(self.student.model, self.materials.read_answered_texts(), self.materials.device)
        return {
            "targets": _NORMALISE[self.materials.phi](torch.from_numpy(said.logits)),
            "student_steps": self.epochs * self.steps,
            "dev_best": progress.best.dev,
        }


# --- baselines ---


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """No student is trained: a linear probe reads the frozen one, fitted on the labels or on the teacher's head."""

    distilled: bool = False

    def make(self, materials: Materials) -> Method:
        """Make the probe."""
        return ProbeMethod(materials, make_head(_take_head(materials)) if self.distilled else None)


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """The student learns the labels that the teacher's head finds the likeliest, by cross-entropy; there is no L_m."""

    def make(self, materials: Materials) -> Method:
        """Make ARMADA with hard targets."""
        taken = _take_head(materials)
        return PseudoLabelled(taken, make_head(taken))


def _take_head(materials: Materials) -> Materials:
    """Let the soft targets be a head's, whatever the config's are, as they are."""
    method = replace(materials.config.method, soft="auto", tau=1.0)
    return replace(materials, config=replace(materials.config, method=method))


METHODS: dict[Control, ControlMethod] = {
    "none": SwappedTeacher(),
    "shuffled-teacher": SwappedTeacher(ShuffledTeacher()),
    "random-vectors": SwappedTeacher(DrawnTeacher()),
    "constant-target": SwappedTeacher(ConstantTeacher()),
    "frozen-aligner": SwappedTeacher(aligner_learns=False),
    "label-smoothing": LabelSmoothing(),
    "self-training": SelfTraining(),
    "linear-probe": LinearProbe(),
    "probe-distilled": LinearProbe(distilled=True),
    "pseudo-labels": PseudoLabels(),
}


def make_method(materials: Materials) -> Method:
    """Make the method that a config asks for. Raises what reading the teacher's answers does, and SourceError."""
    return METHODS[materials.config.method.control].make(materials)
