"""The elementwise term of the authors' code."""

from torch import Tensor
from torch.nn import functional


def row_mse(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = MSE(p_ts, p_s), over batch and dimensions.

    Code, "elementwise". `teacher` and `student` are (n, d). The teacher's get no gradient.
    """
    return functional.mse_loss(student, teacher.detach())
