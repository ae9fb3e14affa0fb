"""The Euclidean term of the paper."""

import torch
from torch import Tensor


def mean_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = || mean_i p_ts_i - mean_i p_s_i ||_2.

    Paper, "euclid". It sees only the means of the batch. `teacher` and `student` are (n, d). The teacher's get no
    gradient.
    """
    distance: Tensor = torch.linalg.vector_norm(teacher.detach().mean(0) - student.mean(0))
    return distance
