"""The labels' own term."""

import torch
from torch import Tensor
from torch.nn import functional


def task_loss(output: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """L_T(y, o): the mean over the labelled rows of the cross-entropy, or of the squared error for regression.

        classification  L_T = -(1/m) sum_i log softmax(o_i)[y_i]      regression  L_T = (1/m) sum_i (o_i - y_i)^2

    Paper and code, the same in both. `output` is (n, c); `target` (n,) holds class indices where its type is an
    integer and values where it is floating; `labelled` (n,) is true for the m rows that have a label. What `target`
    holds on the other rows does not count. A batch without a labelled row gives 0, with a gradient of 0.
    """
    if target.is_floating_point():
        each = (output.squeeze(-1) - torch.where(labelled, target, 0)).square()
    else:
        each = functional.cross_entropy(output, torch.where(labelled, target, 0), reduction="none")
    return (each * labelled).sum() / labelled.sum().clamp(min=1)
