"""ARMADA over the soft targets of the teacher's head, which is fitted in a phase of its own before the student."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distill.data.batches import Batch
from distill.data.columns import Array
from distill.methods.aligning import AlignerTraining
from distill.methods.armada import STUDENT, Armada
from distill.methods.heads import TeacherHead
from distill.methods.materials import Materials
from distill.methods.targets import SoftTargets, keep_targets, smooth_like
from distill.scoring.predict import Predictions, score
from distill.training.method import Phase, Result
from distill.training.progress import Learners, Progress
from distill.training.schedule import EvaluationSchedule

HEAD = "head"


@dataclass(frozen=True, slots=True)
class HeadPhase:
    """The fit of the teacher's head: a phase without a step, whose result a checkpoint keeps."""

    head: TeacherHead
    epochs: int = 0
    steps: int = 0
    best_module: None = None
    evaluation: EvaluationSchedule = EvaluationSchedule()
    rates: str = ""

    @property
    def learners(self) -> Learners:
        """Nothing that a step changes."""
        return {}

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        """Do nothing."""
        return ()

    def batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Make no batch."""
        yield from ()

    def step(self, batch: Batch, epoch: int, index: int) -> Mapping[str, Tensor]:
        """Learn nothing."""
        return {}

    def score(self) -> Mapping[str, float]:
        """Score nothing."""
        return {}

    def finish(self, progress: Progress) -> Result:
        """Fit the head; every process has the first one's."""
        return self.head.materials.device.processes.agree(self.head.fit())


class HeadArmada(Armada):
    """ARMADA whose soft targets are those of the teacher's head: with an aligner for its match term, or none."""

    def __init__(self, materials: Materials, head: TeacherHead, aligner: AlignerTraining | None = None) -> None:
        super().__init__(materials, aligner)
        self.head = head
        self._fitted: Result = {}
        self._hidden: dict[str, Any] = {}

    @property
    def phases(self) -> tuple[str, ...]:
        """The head, and what ARMADA has."""
        return (HEAD, *super().phases)

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        """Make a phase, given the results of those before it."""
        if name == HEAD:
            return HeadPhase(self.head)
        if name == STUDENT:
            self._fitted = results[HEAD]
            said = self.head.give_targets(self._fitted)
            self._hidden = self.head.measure_hidden(said)
            self.targets = self.make_targets(said)
        return super().make_phase(name, results)

    def make_targets(self, said: Array) -> SoftTargets:
        """Make the soft targets of what the head says of the answered rows, (m, c)."""
        return keep_targets(self.materials.rows.train, said)

    def predict_teacher(self) -> dict[str, Predictions]:
        """Add what the head says of the rows that the teacher answered: what the student can learn at most."""
        splits = {"validation": self.materials.rows.dev, "test": self.materials.rows.test}
        said = {f"{name}_head": self.head.predict(self._fitted, s) for name, s in splits.items() if s is not None}
        return {**super().predict_teacher(), **{name: each for name, each in said.items() if each is not None}}

    def describe(self, progress: Progress) -> dict[str, Any]:
        """Add the head: as it was chosen, and on rows that it was not fitted on, where their labels are known.

        These are the training rows that hide their label from the run, and scored rows that the teacher answered.
        """
        manifest = self.materials.rows.manifest
        described = {**self._fitted["description"], **self._hidden}
        for split in ("validation", "test"):
            said = self.predictions.get(f"{split}_head")
            described[split] = None if said is None else score(manifest, said)
            described[f"{split}_rows"] = 0 if said is None else len(said.number)
        return {**super().describe(progress), "teacher_head": described}


class HeadSmoothed(HeadArmada):
    """ARMADA with smoothed labels that have the mean entropy of the head's soft targets."""

    def make_targets(self, said: Array) -> SoftTargets:
        """Smooth the labels."""
        targets = smooth_like(said, self.materials.config.method.tau, self.materials.phi)
        self.first_phase = {"entropy": targets.entropy, "smoothing": targets.smoothing}
        return targets
