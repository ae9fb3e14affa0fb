"""The Euclidean term of the authors' code."""

from torch import Tensor
from torch.nn import functional


def mean_mse(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = MSE(mean_i p_ts_i, mean_i p_s_i), over the d dimensions.

    Code, "euclid". It sees only the means of the batch. `teacher` and `student` are (n, d). The teacher's get no
    gradient.
    """
    return functional.mse_loss(student.mean(0), teacher.detach().mean(0))
