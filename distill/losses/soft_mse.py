"""The soft targets' term of the authors' code."""

from torch import Tensor
from torch.nn import functional


def soft_mse(teacher: Tensor, student: Tensor, tau: float, regression: bool) -> Tensor:
    """tau^2 MSE(softmax(o_ts / tau), softmax(o_s / tau)), over batch and classes; for regression MSE(o_ts, o_s).

    Code. `teacher` and `student` are (n, c) logits. The teacher's get no gradient.
    """
    teacher = teacher.detach()
    if regression:
        return functional.mse_loss(student, teacher)
    return tau**2 * functional.mse_loss((student / tau).softmax(-1), (teacher / tau).softmax(-1))
