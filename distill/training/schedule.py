"""What changes from step to step of a phase: the learning rate, and how much the teacher counts."""

import math
from dataclasses import dataclass

from distill.config import Decay, TeacherDecay

EVALUATION_STEPS = 100  # of the student, at least, between two scores that the default recipe makes


@dataclass(frozen=True, slots=True)
class RateSchedule:
    """The factor of the learning rate: up linearly over `warmup`, a share of the steps, then level or down linearly."""

    warmup: float
    decay: Decay
    steps: int

    def at(self, step: int) -> float:
        """Give the factor at a step, from 0 on."""
        warmup_steps = math.ceil(self.warmup * self.steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if self.decay == "linear":
            return (self.steps - step) / max(1, self.steps - warmup_steps)
        return 1.0


@dataclass(frozen=True, slots=True)
class TeacherSchedule:
    """The factor of the teacher's weights, alpha and beta: 1 at first, near 0 at last, in a line or half a cosine."""

    decay: TeacherDecay
    steps: int

    def at(self, step: int) -> float:
        """Give the factor at a step, from 0 on."""
        if self.decay == "linear":
            return 1 - step / self.steps
        if self.decay == "cosine":
            return (1 + math.cos(math.pi * step / self.steps)) / 2
        return 1.0


@dataclass(frozen=True, slots=True)
class EvaluationSchedule:
    """When a phase is scored: after every `every` steps of an epoch, None never, and at its end.

    It stops after `patience` scores in a row that are not the best, None never.
    """

    every: int | None = None
    patience: int | None = None

    def is_due(self, step: int, steps: int) -> bool:
        """Tell whether to score after `step` steps of an epoch of so many `steps`, before its end."""
        return self.every is not None and step % self.every == 0 and step < steps


def space_evaluations(steps: int, dev_rows: int, batch_size: int) -> int | None:
    """Choose the steps between the scores of an epoch of so many `steps`; None where its end is enough.

    They are at least EVALUATION_STEPS apart, and never so close that more rows are scored than trained on; what an
    epoch has of them is spread evenly.
    """
    parts = steps // max(EVALUATION_STEPS, -(-dev_rows // batch_size))
    return None if parts < 2 else -(-steps // parts)
