"""Comparisons of two spaces that no rotation changes: centred kernel alignment, and the Procrustes distance."""

import torch
from torch import Tensor

LEAST_ROWS = 4  # the unbiased estimator divides by n - 3


def cka(teacher: Tensor, student: Tensor) -> Tensor:
    """L_m = 1 - HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), K = P_ts P_ts^T and L = P_s P_s^T over the batch's rows.

    HSIC is the estimator without bias of Song et al. (2012), as minibatch CKA takes it (Nguyen, Raghu and Kornblith,
    arXiv:2010.15327): with K and L zero on the diagonal,

        HSIC(K, L) = [tr(K L) + 1^T K 1 1^T L 1 / ((n - 1)(n - 2)) - 2/(n - 2) 1^T K L 1] / (n (n - 3)).

    It is an inner product of U-centred matrices (Szekely and Rizzo, 2014), which is how it is computed: so each HSIC
    of a matrix with itself is a square, and the value lies between 0 and 2. The biased estimator tends to 1 for any two
    spaces that are wider than the batch is long. Linear CKA: Kornblith et al., arXiv:1905.00414.

    `teacher` (n, d) and `student` (n, e): the widths may differ. The teacher's get no gradient. A batch of fewer than
    LEAST_ROWS rows gives 0, with a gradient of 0.
    """
    if len(student) < LEAST_ROWS:
        return student.sum() * 0
    ours, theirs = _centre_gram(student), _centre_gram(teacher.detach())
    tiny = torch.finfo(student.dtype).tiny  # rows that are all alike have no direction: 1, and no gradient
    return 1 - (ours * theirs).sum() / (ours.square().sum() * theirs.square().sum()).clamp(min=tiny).sqrt()


def _centre_gram(rows: Tensor) -> Tensor:
    """Give the U-centred Gram matrix, (n, n), at a size of about 1: no constant factor changes CKA."""
    n = len(rows)
    centred = rows - rows.mean(0)  # changes nothing but what rounding does to large means
    gram = centred @ centred.T
    gram = gram / gram.detach().diagonal().mean().clamp(min=torch.finfo(rows.dtype).tiny)
    gram = gram - gram.diagonal().diag_embed()
    sums = gram.sum(0)
    together = gram - (sums[:, None] + sums[None, :]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return together - together.diagonal().diag_embed()


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
    """Give `moved` Q, (n, d), for the orthogonal Q that brings it closest to `fixed`.

    Q = U V^T of the singular value decomposition of moved^T fixed, a d x d matrix. With moved^T = Q1 R1 and
    fixed^T = Q2 R2 that of R1 R2^T, which is as small as the batch, says the same.
    """
    finite = torch.isfinite(fixed).all()  # a condition that stays on the device: asking for it would wait there
    _, r1 = torch.linalg.qr(moved.T)
    q2, r2 = torch.linalg.qr(torch.where(finite, fixed, 0.0).T)
    u, _, vh = torch.linalg.svd(r1 @ r2.T)
    rotated: Tensor = r1.T @ u @ vh @ q2.T
    return torch.where(finite, rotated, torch.nan)  # the run's own error says it better than the decomposition's
