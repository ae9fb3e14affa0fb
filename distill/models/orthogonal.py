"""Linear layers as the method wants them: orthogonal ones, and the starting values of the others."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill.config import DecayedWeights


class OrthogonalLinear(nn.Module):
    """A linear map without bias whose matrix stays (semi-)orthogonal: its columns or its rows are orthonormal.

    After an optimiser's step, `retract` brings it back. That keeps the same constraint as
    torch.nn.utils.parametrizations.orthogonal, whose backward pass takes longer than a small student's whole step.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs)."""
        return nn.functional.linear(x, self.weight)

    @torch.no_grad()
    def retract(self) -> None:
        """Replace the matrix by the Q of its QR decomposition; a positive diagonal of R lets it move little."""
        tall = self.weight.shape[0] >= self.weight.shape[1]
        q, r = torch.linalg.qr(self.weight if tall else self.weight.T)
        q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
        self.weight.copy_(q if tall else q.T)


def retract_all(module: nn.Module) -> None:
    """Make every orthogonal map in `module` that the last step moved orthogonal again."""
    for part in module.modules():
        if isinstance(part, OrthogonalLinear) and part.weight.grad is not None:
            part.retract()


def make_optimizer(module: nn.Module, rate: float, decayed: DecayedWeights = "matrices") -> torch.optim.Optimizer:
    """Make an AdamW of a module's trainable weights; after each step its orthogonal maps are made orthogonal again.

    Weight decay holds for all of them, or for matrices alone: a bias or the scale of a norm is no weight of an input.
    """
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trainable}]
    if decayed == "matrices":
        vectors = [weight for weight in trainable if weight.dim() < 2]
        groups = [{"params": [weight for weight in trainable if weight.dim() > 1]}]
        groups += [{"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, fused=True)
    optimizer.register_step_post_hook(partial(_retract_after_step, module))
    return optimizer


def _retract_after_step(module: nn.Module, *_: object) -> None:
    retract_all(module)


def init_linear(module: nn.Module) -> None:
    """Start a linear layer as both sources do: weights N(0, .02), biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
