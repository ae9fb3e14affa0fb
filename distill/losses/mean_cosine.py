"""The cosine term of the authors' code."""

from torch import Tensor
from torch.nn import functional


def mean_cosine(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = 1 - cos(mean_i p_ts_i, mean_i p_s_i).

    Code, "cosine": normalised. It sees only the means of the batch. `teacher` and `student` are (n, d). The teacher's
    get no gradient.
    """
    return 1 - functional.cosine_similarity(teacher.detach().mean(0), student.mean(0), dim=0)
