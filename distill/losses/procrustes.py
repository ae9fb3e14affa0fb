"""The orthogonal Procrustes distance: what is left between two spaces after the best rotation."""

import torch
from torch import Tensor


def procrustes(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = min_Q || A Q - B ||_F^2 = 2 - 2 || A^T B ||_*, over orthogonal Q.

    A and B are P_ts and P_s, (n, d), less their means over the batch and divided by their Frobenius norms; ||.||_* is
    the sum of the singular values. Between 0, where one is a rotation of the other, and 2. Sources: Schoenemann (1966)
    for Q; Ding, Denain and Steinhardt, arXiv:2108.01661, for the normalised distance.

    The wider the space and the shorter the batch, the closer any two come: it sees how the batch's rows lie to each
    other, and no more. Q is found without a gradient: at the minimum that of the distance is the same (Danskin), and it
    needs no derivative of a decomposition. The teacher's get no gradient. Rows that are all alike have no direction:
    they give a gradient of 0.
    """
    ours, theirs = _normalise(student), _normalise(teacher.detach())
    return (_rotate(theirs, ours.detach()) - ours).square().sum()


def _normalise(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(0)
    tiny = torch.finfo(rows.dtype).tiny
    return centred / centred.square().sum().clamp(min=tiny).sqrt()


@torch.no_grad()
def _rotate(moved: Tensor, fixed: Tensor) -> Tensor:
    """`moved` Q, (n, d), for the orthogonal Q that brings it closest to `fixed`.

    Q = U V^T of the singular value decomposition of moved^T fixed, a d x d matrix. With moved^T = Q1 R1 and
    fixed^T = Q2 R2 that of R1 R2^T, which is as small as the batch, says the same.
    """
    if not torch.isfinite(fixed).all():  # the run's own error says it better than the decomposition's
        return moved * torch.nan
    _, r1 = torch.linalg.qr(moved.T)
    q2, r2 = torch.linalg.qr(fixed.T)
    u, _, vh = torch.linalg.svd(r1 @ r2.T)
    rotated: Tensor = r1.T @ u @ vh @ q2.T
    return rotated
