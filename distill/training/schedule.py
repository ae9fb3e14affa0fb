"""What changes from step to step of a phase: the learning rate, and how much the teacher counts."""

import math
from dataclasses import dataclass

from distill.config import Decay, TeacherDecay


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
