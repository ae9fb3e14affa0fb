"""What the training loop knows of a method, and what a run does. It knows no model and no loss."""

from collections.abc import Generator, Iterable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from distill.data.columns import Array
from distill.training.progress import EpochRecord, Learners, Progress
from distill.training.schedule import EvaluationSchedule

Result = dict[str, Any]  # what a phase hands on: tensors and plain values, which a checkpoint keeps


B = TypeVar("B", bound=Sized)


class Phase(Protocol[B]):
    """A training of its own: epochs of steps over batches, perhaps scored after each, and in between.

    What a step draws may depend on (epoch, step) alone, and torch must be seeded anew before each: then a run that goes
    on from a checkpoint of any step comes to the same weights as one that was never stopped.
    """

    @property
    def epochs(self) -> int:
        """Epochs, which are numbered from 1."""

    @property
    def steps(self) -> int:
        """Steps of an epoch."""

    @property
    def learners(self) -> Learners:
        """All modules and optimisers that a step changes, by name."""

    @property
    def best_module(self) -> nn.Module | None:
        """The module whose weights are kept at the best score; None where those at the end count."""

    @property
    def evaluation(self) -> EvaluationSchedule:
        """When it is scored, beside the end of each epoch."""

    @property
    def rates(self) -> str:
        """The options that set its learning rates, as a user writes them."""

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        """Do what comes before an epoch's first step, and give the terms of each step of that."""

    def batches(self, epoch: int, start: int) -> Generator[B]:
        """Make the batches of an epoch from step `start` on."""

    def step(self, batch: B, epoch: int, index: int) -> Mapping[str, Tensor]:
        """Learn from one batch, and give its terms by name, detached or not."""

    def score(self) -> Mapping[str, float]:
        """Score on the dev rows; the first score chooses the best weights. Empty where a phase is not scored."""

    def finish(self, progress: Progress) -> Result:
        """Turn to the weights that count, and give what the next phases need of this one."""


@dataclass(frozen=True, slots=True)
class RowScores:
    """One score for each scored row of a split: `number` is the row's place in the split.

    The mean over rows is the task's metric, or estimates it.
    """

    number: Array
    score: np.ndarray[Any, np.dtype[np.float64]]


class Method(Protocol):
    """A way to train a student: phases, and then what it predicts, how each row scores, and what is saved of it."""

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of its phases, in order. The last one trains what is kept, and its epochs are the run's."""

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        """Make a phase, given the results of those before it."""

    def describe_epoch(self, record: EpochRecord) -> dict[str, Any]:
        """Give an epoch of the last phase as the run's log has it; `dev` is the score that chooses the best one."""

    def score_rows(self) -> Mapping[str, RowScores]:
        """Score every scored row, by split: `validation`, `test` where there are such rows, and others of its own."""

    def describe(self, progress: Progress) -> dict[str, Any]:
        """Give what metrics.json says of the method; `progress` is that of the last phase.

        `test` is the student's score on the test rows, None where there are none.
        """

    def collect(self) -> None:
        """Bring together in the first process what is saved, where several share its weights; it computes no more.

        All processes must call it together.
        """

    def save_predictions(self, folder: Path) -> None:
        """Write what it said of the scored rows to a run's folder."""

    def save(self, folder: Path) -> None:
        """Write the student, and what was trained beside it, to a run's folder."""
