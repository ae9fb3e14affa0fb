"""The contrastive term: each row's student must find its own teacher among the batch's. Imports torch when called."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from shared.options import Option, check_options

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Contrastive:
    """L_m = -(1/n) sum_i log [exp(s_ii / t) / sum_j exp(s_ij / t)], s_ij = cos(p_s_i, p_ts_j), t the temperature.

    InfoNCE (van den Oord et al., arXiv:1807.03748) with the batch's other rows as negatives, as contrastive
    distillation uses it (Tian et al., arXiv:1910.10699). The teacher's and the student's rows are (n, d). The teacher's
    get no gradient. One row alone gives 0.
    """

    temperature: Annotated[float, Option("Temperature of --loss contrastive.", above=0)] = 0.1

    def __post_init__(self) -> None:
        check_options(self)

    def __call__(self, teacher: "Tensor", student: "Tensor") -> "Tensor":
        """Give the loss of one batch, a scalar."""
        import torch
        from torch.nn import functional

        ours, theirs = functional.normalize(student, dim=-1), functional.normalize(teacher.detach(), dim=-1)
        right = torch.arange(len(ours), device=ours.device)
        return functional.cross_entropy(ours @ theirs.T / self.temperature, right)
