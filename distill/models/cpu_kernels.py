"""What makes a training step shorter on a CPU, and changes neither what is learned nor what is saved."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill.models.adapters import unwrap

SHORT = 128  # tokens up to which attention that writes out all its scores is no slower


def quicken(model: Any, max_length: int) -> None:
    """Change how a transformers model computes on a CPU: see drop_out, and attention for short texts.

    torch's fused attention has no CPU kernel with dropout: it comes to the same steps as eager attention, with more
    copies.
    """
    classifier = unwrap(model)
    if max_length <= SHORT and getattr(classifier.config, "_attn_implementation", None) == "sdpa":
        classifier.set_attn_implementation("eager")
    for part in model.modules():
        if type(part) is nn.Dropout:
            part.forward = partial(_forward, part)  # type: ignore[method-assign]


def drop_out(x: Tensor, rate: float) -> Tensor:
    """Zero each value with probability `rate`, to within 2 ** -17, and scale the others by 1 / (1 - rate).

    16 bits decide, four values a draw of torch's generator: torch's own dropout draws once a value, and takes 2 to 3
    times as long.
    """
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return x * (bits >= round(rate * 2**16) - 2**15).to(x.dtype).mul_(1 / (1 - rate))


def _forward(dropout: nn.Dropout, x: Tensor) -> Tensor:
    if not dropout.training or not 0 < dropout.p < 1 or x.device.type != "cpu":
        return nn.functional.dropout(x, dropout.p, dropout.training)
    return drop_out(x, dropout.p)
