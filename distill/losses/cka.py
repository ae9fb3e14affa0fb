"""Centred kernel alignment, a comparison of two spaces that no rotation or scale of either changes."""

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
    ours, theirs = _centre(student), _centre(teacher.detach())
    tiny = torch.finfo(student.dtype).tiny  # rows that are all alike have no direction: 1, and no gradient
    return 1 - (ours * theirs).sum() / (ours.square().sum() * theirs.square().sum()).clamp(min=tiny).sqrt()


def _centre(rows: Tensor) -> Tensor:
    """The U-centred Gram matrix, (n, n), brought to a size of about 1: no constant factor changes CKA."""
    n = len(rows)
    centred = rows - rows.mean(0)  # changes nothing but what rounding does to large means
    gram = centred @ centred.T
    gram = gram / gram.detach().diagonal().mean().clamp(min=torch.finfo(rows.dtype).tiny)
    gram = gram - gram.diagonal().diag_embed()
    sums = gram.sum(0)
    together = gram - (sums[:, None] + sums[None, :]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return together - together.diagonal().diag_embed()
