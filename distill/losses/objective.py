"""What the aligner and the student minimise: the terms of this package, weighted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor
from torch.nn import functional

from distill.config import ArmadaConfig, Soft
from distill.losses.armada import code_soft, paper_soft
from distill.losses.label_kl import label_kl, label_set_kl
from distill.losses.registry import Match, Semantics, make_match
from distill.losses.task import task_loss
from distill.models.outputs import Outputs
from distill.phi import Phi

SOFT = {"paper": paper_soft, "code": code_soft}
GIVEN: Mapping[Phi, Callable[..., Tensor]] = {"softmax": label_kl, "sigmoid": label_set_kl}


@dataclass(frozen=True, slots=True)
class WeightedLoss:
    """A term of L_m, and its weight relative to beta."""

    match: Match
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Weights and forms of the terms. `losses` are L_m's, by name; `phi` picks their form."""

    semantics: Semantics
    losses: Mapping[str, WeightedLoss] = field(default_factory=dict)
    alpha: float
    beta: float
    gamma: float
    tau: float
    phi: Phi
    soft: Soft = "aligner"

    def aligner_loss(self, outputs: Outputs, target: Tensor, labelled: Tensor) -> Tensor:
        """Give L_T(y, o_ts) + gamma L_T(y, a_ts), over the labelled rows: the same in the paper and in the code."""
        main = task_loss(outputs.main, target, labelled)
        return main + self.gamma * task_loss(outputs.auxiliary, target, labelled)

    def student_terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor, labelled: Tensor, strength: float = 1.0
    ) -> dict[str, Tensor]:
        """Give the student's objective as `total`, and the unweighted terms `task`, `soft` and `match` that make it.

            total = (1 - f alpha) task + f alpha soft + f beta match        task = L_T(y, o_s) + gamma L_T(y, a_s)

        With f = 1 this is both the paper's L_s1 + gamma L_s2 + beta L_m and the code's; f is `strength`, the share
        of the teacher's weights that a schedule leaves. `task` is over the labelled rows, the others over all rows;
        without a `teacher` they are absent, and alpha and beta must be 0. Unless `soft` is "aligner", the main and
        auxiliary outputs of the `teacher` are log-probabilities of labels, or logits where a row has several (see
        distill.losses.label_kl), or values of a regression, for which the term is the mean square error.
        """
        task = task_loss(student.main, target, labelled) + self.gamma * task_loss(student.auxiliary, target, labelled)
        terms = {"task": task}
        total = (1 - strength * self.alpha) * task
        if teacher is not None and self.alpha:
            soft = self._soft()
            terms["soft"] = soft(teacher.main, student.main)
            terms["soft"] += self.gamma * soft(teacher.auxiliary, student.auxiliary)
            total = total + strength * self.alpha * terms["soft"]
        if teacher is not None and self.beta and self.losses:
            terms |= self._match(teacher.projected, student.projected)
            total = total + strength * self.beta * terms["match"]
        return {"total": total, **terms}

    def _soft(self) -> Match:
        if self.soft != "aligner":
            return functional.mse_loss if self.phi == "identity" else partial(GIVEN[self.phi], tau=self.tau)
        return partial(SOFT[self.semantics], tau=self.tau, phi=self.phi)

    def _match(self, teacher: Tensor, student: Tensor) -> dict[str, Tensor]:
        """Give L_m, the weighted sum of its terms, as `match`; where it has several, each by its name, unweighted."""
        each = {name: loss.match(teacher, student) for name, loss in self.losses.items()}
        weighted = [loss.weight * each[name] for name, loss in self.losses.items()]
        match = weighted[0]
        for further in weighted[1:]:
            match = match + further
        return {"match": match, **(each if len(each) > 1 else {})}


def make_objective(config: ArmadaConfig, phi: Phi) -> Objective:
    """Make the objective that a config asks for. Raises UsageError for a loss that cannot be loaded."""
    terms = config.terms if config.matches else ()
    assert config.alpha != "auto", "the rows of a run say what it is"
    return Objective(
        semantics=config.semantics,
        losses={
            term.name: WeightedLoss(make_match(term.name, config.semantics, config.loss_options), term.weight)
            for term in terms
        },
        alpha=config.alpha,
        beta=config.beta,
        gamma=config.gamma,
        tau=config.tau,
        phi=phi,
        soft=config.soft,
    )
