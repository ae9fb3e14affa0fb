"""The labels' own term."""

import torch
from torch import Tensor
from torch.nn import functional


def task_loss(output: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """L_T(y, o): the mean over the labelled rows of the cross-entropy, or of the squared error for regression.

        classification  L_T = -(1/m) sum_i log softmax(o_i)[y_i]      regression  L_T = (1/m) sum_i (o_i - y_i)^2
        several labels  L_T = -(1/m) sum_ik log sigmoid(o_ik) where y_ik, and log sigmoid(-o_ik) elsewhere

    Paper and code, the same in both; the third is this project's reading (see distill.phi). `output` is (n, c);
    `target` (n,) holds class indices where its type is an integer and values where it is floating, and is (n, c) of
    booleans for several labels; `labelled` (n,) is true for the m rows that have a label. What `target`
    holds on the other rows does not count. A batch without a labelled row gives 0, with a gradient of 0.
    """
    if target.dtype == torch.bool:
        wanted = target.to(output.dtype)
        each = functional.binary_cross_entropy_with_logits(output, wanted, reduction="none").sum(-1)
    elif target.is_floating_point():
        each = (output.squeeze(-1) - torch.where(labelled, target, 0)).square()
    else:
        each = functional.cross_entropy(output, torch.where(labelled, target, 0), reduction="none")
    return (each * labelled).sum() / labelled.sum().clamp(min=1)
