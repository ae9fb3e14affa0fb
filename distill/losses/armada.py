"""ARMADA's own terms, in the paper's form (arXiv:2603.10877v1) and in that of its authors' code, side by side.

    term         paper                                             code
    cosine       1 - < mean_i p_ts_i , mean_i p_s_i >              1 - cos(mean_i p_ts_i, mean_i p_s_i)
    euclid       || mean_i p_ts_i - mean_i p_s_i ||_2              MSE(mean_i p_ts_i, mean_i p_s_i)
    elementwise  (1/n) sum_i || p_ts_i - p_s_i ||_2                MSE(p_ts, p_s), over batch and dimensions
    soft         (1/n) sum_i || Phi(o_ts_i/tau) - Phi(o_s_i/tau) ||_2    tau^2 MSE(Phi(o_ts/tau), Phi(o_s/tau))

The first three are L_m, and take the teacher's and the student's rows of the joint space, (n, d). `cosine` and `euclid`
see only the means of the batch, so the order of the teacher's rows within it does not matter to them. Phi is softmax;
for regression it is the identity in the paper, and the code compares o_ts and o_s as they are, without tau. For several
labels a row it is the sigmoid of each, in both: see distill.phi. No term gives the teacher a gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

from distill.phi import Phi

# --- cosine ---


def paper_cosine(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = 1 - < mean_i p_ts_i , mean_i p_s_i >: an inner product that is not normalised."""
    return 1 - teacher.detach().mean(0) @ student.mean(0)


def code_cosine(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = 1 - cos(mean_i p_ts_i, mean_i p_s_i)."""
    return 1 - functional.cosine_similarity(teacher.detach().mean(0), student.mean(0), dim=0)


# --- euclid ---


def paper_euclid(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = || mean_i p_ts_i - mean_i p_s_i ||_2."""
    distance: Tensor = torch.linalg.vector_norm(teacher.detach().mean(0) - student.mean(0))
    return distance


def code_euclid(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = MSE(mean_i p_ts_i, mean_i p_s_i), over the d dimensions."""
    return functional.mse_loss(student.mean(0), teacher.detach().mean(0))


# --- elementwise ---


def paper_elementwise(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = (1/n) sum_i || p_ts_i - p_s_i ||_2."""
    distances: Tensor = torch.linalg.vector_norm(teacher.detach() - student, dim=-1)
    return distances.mean()


def code_elementwise(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = MSE(p_ts, p_s), over batch and dimensions."""
    return functional.mse_loss(student, teacher.detach())


# --- soft targets ---


def paper_soft(teacher: Tensor, student: Tensor, tau: float, phi: Phi) -> Tensor:
    """Average || Phi(o_ts / tau) - Phi(o_s / tau) ||_2 over rows; `teacher` and `student` are (n, c) logits.

    The paper writes the norm of one row in L_s1 and L_s2; like L_T, it is averaged over the batch.
    """
    teacher, student = teacher.detach() / tau, student / tau
    if phi != "identity":
        teacher, student = _apply(phi, teacher), _apply(phi, student)
    distances: Tensor = torch.linalg.vector_norm(teacher - student, dim=-1)
    return distances.mean()


def code_soft(teacher: Tensor, student: Tensor, tau: float, phi: Phi) -> Tensor:
    """tau^2 MSE(Phi(o_ts / tau), Phi(o_s / tau)), over batch and classes; for regression MSE(o_ts, o_s)."""
    teacher = teacher.detach()
    if phi == "identity":
        return functional.mse_loss(student, teacher)
    return tau**2 * functional.mse_loss(_apply(phi, student / tau), _apply(phi, teacher / tau))


def _apply(phi: Phi, logits: Tensor) -> Tensor:
    return logits.sigmoid() if phi == "sigmoid" else logits.softmax(-1)
