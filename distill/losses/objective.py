"""What the aligner and the student minimise: the terms of this package, weighted."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from distill.config import Loss, Semantics
from distill.losses.mean_cosine import mean_cosine
from distill.losses.mean_distance import mean_distance
from distill.losses.mean_dot import mean_dot
from distill.losses.mean_mse import mean_mse
from distill.losses.row_distance import row_distance
from distill.losses.row_mse import row_mse
from distill.losses.soft_distance import soft_distance
from distill.losses.soft_mse import soft_mse
from distill.losses.task import task_loss
from distill.outputs import Outputs

SOFT = {"paper": soft_distance, "code": soft_mse}
MATCH: dict[tuple[Semantics, Loss], Callable[[Tensor, Tensor], Tensor]] = {
    ("paper", "cosine"): mean_dot,
    ("paper", "euclid"): mean_distance,
    ("paper", "elementwise"): row_distance,
    ("code", "cosine"): mean_cosine,
    ("code", "euclid"): mean_mse,
    ("code", "elementwise"): row_mse,
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

    def aligner_loss(self, outputs: Outputs, target: Tensor, labelled: Tensor) -> Tensor:
        """L_T(y, o_ts) + gamma L_T(y, a_ts), over the labelled rows. Paper and code, the same in both."""
        main = task_loss(outputs.main, target, labelled)
        return main + self.gamma * task_loss(outputs.auxiliary, target, labelled)

    def student_terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor, labelled: Tensor
    ) -> dict[str, Tensor]:
        """The student's objective as `total`, with the unweighted terms `task`, `soft` and `match` that it is made of.

            total = (1 - alpha) task + alpha soft + beta match        task = L_T(y, o_s) + gamma L_T(y, a_s)

        This one form is both the paper's L_s1 + gamma L_s2 + beta L_m and that of the code. `task` is over the
        labelled rows, the others over all rows; without a `teacher` they are absent, and alpha and beta must be 0.
        """
        task = task_loss(student.main, target, labelled) + self.gamma * task_loss(student.auxiliary, target, labelled)
        terms = {"task": task}
        total = (1 - self.alpha) * task
        if teacher is not None and self.alpha:
            soft = SOFT[self.semantics]
            terms["soft"] = soft(teacher.main, student.main, self.tau, self.regression)
            terms["soft"] += self.gamma * soft(teacher.auxiliary, student.auxiliary, self.tau, self.regression)
            total = total + self.alpha * terms["soft"]
        if teacher is not None and self.beta and self.loss != "none":
            terms["match"] = MATCH[self.semantics, self.loss](teacher.projected, student.projected)
            total = total + self.beta * terms["match"]
        return {"total": total, **terms}
