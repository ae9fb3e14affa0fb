"""What the aligner and the student minimise: the terms of this package, weighted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import get_args

from torch import Tensor

from distill.config import Loss, Semantics, Soft
from distill.losses.cka import cka
from distill.losses.contrastive import contrastive
from distill.losses.label_kl import label_kl
from distill.losses.mean_cosine import mean_cosine
from distill.losses.mean_distance import mean_distance
from distill.losses.mean_dot import mean_dot
from distill.losses.mean_mse import mean_mse
from distill.losses.procrustes import procrustes
from distill.losses.row_distance import row_distance
from distill.losses.row_mse import row_mse
from distill.losses.soft_distance import soft_distance
from distill.losses.soft_mse import soft_mse
from distill.losses.task import task_loss
from distill.models.outputs import Outputs

SOFT = {"paper": soft_distance, "code": soft_mse}
Match = Callable[[Tensor, Tensor], Tensor]
MATCH: dict[tuple[Semantics, Loss], Match] = {
    ("paper", "cosine"): mean_dot,
    ("paper", "euclid"): mean_distance,
    ("paper", "elementwise"): row_distance,
    ("code", "cosine"): mean_cosine,
    ("code", "euclid"): mean_mse,
    ("code", "elementwise"): row_mse,
    **{(semantics, "cka"): cka for semantics in get_args(Semantics)},
    **{(semantics, "procrustes"): procrustes for semantics in get_args(Semantics)},
}


@dataclass(frozen=True, slots=True)
class Objective:
    """Weights and forms of the terms; `regression` picks the form of those that have two."""

    semantics: Semantics
    loss: Loss
    alpha: float
    beta: float
    gamma: float
    tau: float
    regression: bool
    contrastive_temperature: float = 0.1
    soft: Soft = "aligner"

    def aligner_loss(self, outputs: Outputs, target: Tensor, labelled: Tensor) -> Tensor:
        """L_T(y, o_ts) + gamma L_T(y, a_ts), over the labelled rows. Paper and code, the same in both."""
        main = task_loss(outputs.main, target, labelled)
        return main + self.gamma * task_loss(outputs.auxiliary, target, labelled)

    def student_terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor, labelled: Tensor, strength: float = 1.0
    ) -> dict[str, Tensor]:
        """The student's objective as `total`, with the unweighted terms `task`, `soft` and `match` that it is made of.

            total = (1 - f alpha) task + f alpha soft + f beta match        task = L_T(y, o_s) + gamma L_T(y, a_s)

        With f = 1 this is both the paper's L_s1 + gamma L_s2 + beta L_m and the code's; f is `strength`, the share
        of the teacher's weights that a schedule leaves. `task` is over the labelled rows, the others over all rows;
        without a `teacher` they are absent, and alpha and beta must be 0. With soft = "kl" the main and auxiliary
        outputs of the `teacher` are log-probabilities of labels: see distill.losses.label_kl.
        """
        task = task_loss(student.main, target, labelled) + self.gamma * task_loss(student.auxiliary, target, labelled)
        terms = {"task": task}
        total = (1 - strength * self.alpha) * task
        if teacher is not None and self.alpha:
            soft = self._soft()
            terms["soft"] = soft(teacher.main, student.main)
            terms["soft"] += self.gamma * soft(teacher.auxiliary, student.auxiliary)
            total = total + strength * self.alpha * terms["soft"]
        if teacher is not None and self.beta and self.loss != "none":
            terms["match"] = self._match()(teacher.projected, student.projected)
            total = total + strength * self.beta * terms["match"]
        return {"total": total, **terms}

    def _soft(self) -> Match:
        if self.soft == "kl":
            return partial(label_kl, tau=self.tau)
        return partial(SOFT[self.semantics], tau=self.tau, regression=self.regression)

    def _match(self) -> Match:
        if self.loss == "contrastive":
            return partial(contrastive, temperature=self.contrastive_temperature)
        return MATCH[self.semantics, self.loss]
