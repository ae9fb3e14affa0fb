"""The elementwise term of the paper."""

import torch
from torch import Tensor


def row_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = (1/n) sum_i || p_ts_i - p_s_i ||_2.

    Paper, "elementwise". `teacher` and `student` are (n, d). The teacher's get no gradient.
    """
    distances: Tensor = torch.linalg.vector_norm(teacher.detach() - student, dim=-1)
    return distances.mean()
