"""The cosine term of the paper."""

from torch import Tensor


def mean_dot(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = 1 - < mean_i p_ts_i , mean_i p_s_i >.

    Paper, "cosine": an inner product that is not normalised. It sees only the means of the batch, so the order of the
    teacher's rows within it does not matter. `teacher` and `student` are (n, d). The teacher's get no gradient.
    """
    return 1 - teacher.detach().mean(0) @ student.mean(0)
