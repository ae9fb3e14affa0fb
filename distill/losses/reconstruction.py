"""ARMADA's terms for a teacher's vector h_t that is regressed onto: this project's reading for students that write.

The paper (arXiv:2603.10877v1) trains such students, and says of their losses only that the aligner is pre-trained to
reconstruct h_t by its squared error. Its rule for regression, L_T the squared error and Phi the identity, applied to a
regression onto the standardised h_t gives

    aligner  MSE(h_t, o_ts) + gamma MSE(h_t, a_ts)
    student  gamma [ (1 - alpha) MSE(h_t, a_s) + alpha mean_i || (a_ts_i - a_s_i) / tau ||_2 ] + beta L_m(p_ts, p_s)

beside the likelihood of the reply. The main term of Eq. 2 is left out: it would compare a vector with tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from distill.losses.armada import paper_soft
from distill.losses.registry import Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Weights of the terms; `losses` are L_m's, by name, each with its weight relative to beta."""

    losses: Mapping[str, tuple[Match, float]]
    alpha: float
    beta: float
    gamma: float
    tau: float

    def aligner_loss(self, vector: Tensor, main: Tensor, auxiliary: Tensor) -> Tensor:
        """Give the aligner's loss for standardised vectors (n, d) and its two reconstructions of them."""
        return functional.mse_loss(main, vector) + self.gamma * functional.mse_loss(auxiliary, vector)

    def student_terms(
        self, vector: Tensor, teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """Give the student's objective as `vectors`, and the unweighted terms `target`, `soft` and `match`.

        `teacher` and `student` are each a projection (n, p) and a reconstruction (n, d) of h_t; the teacher's gets no
        gradient.
        """
        (their_projected, theirs), (projected, own) = teacher, student
        target = functional.mse_loss(own, vector)
        soft = paper_soft(theirs, own, self.tau, phi="identity")
        total = self.gamma * ((1 - self.alpha) * target + self.alpha * soft)
        terms = {"target": target, "soft": soft}
        if self.losses:
            match = sum(weight * loss(their_projected, projected) for loss, weight in self.losses.values())
            terms["match"] = target.new_zeros(()) + match
            total = total + self.beta * terms["match"]
        return {"vectors": total, **terms}
