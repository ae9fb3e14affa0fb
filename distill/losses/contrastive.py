"""The contrastive term: each row's student must find its own teacher among the batch's."""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """L_m = -(1/n) sum_i log [exp(s_ii / t) / sum_j exp(s_ij / t)], s_ij = cos(p_s_i, p_ts_j), t the temperature.

    InfoNCE (van den Oord et al., arXiv:1807.03748) with the batch's other rows as negatives, as contrastive
    distillation uses it (Tian et al., arXiv:1910.10699). `teacher` and `student` are (n, d). The teacher's get no
    gradient. One row alone gives 0.
    """
    ours, theirs = functional.normalize(student, dim=-1), functional.normalize(teacher.detach(), dim=-1)
    return functional.cross_entropy(ours @ theirs.T / temperature, torch.arange(len(ours), device=ours.device))
