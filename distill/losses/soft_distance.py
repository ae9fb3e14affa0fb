"""The soft targets' term of the paper."""

import torch
from torch import Tensor


def soft_distance(teacher: Tensor, student: Tensor, tau: float, regression: bool) -> Tensor:
    """The mean over rows of || Phi(o_ts / tau) - Phi(o_s / tau) ||_2; Phi is softmax, or identity for regression.

    Paper, in L_s1 and L_s2. The paper writes the norm of one row; like L_T, it is averaged over the batch.
    `teacher` and `student` are (n, c) logits. The teacher's get no gradient.
    """
    teacher, student = teacher.detach() / tau, student / tau
    if not regression:
        teacher, student = teacher.softmax(-1), student.softmax(-1)
    distances: Tensor = torch.linalg.vector_norm(teacher - student, dim=-1)
    return distances.mean()
