"""Linear layers as the method wants them: orthogonal ones, and the starting values of the others."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill.compute.sharding import place_like, read_whole
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
        """Replace the matrix W by Q = W R^-1, R^T R = W^T W with a positive diagonal: the Q of its QR decomposition.

        It is made of a product, a Cholesky factor and a triangular solve, which a GPU computes without waiting, where
        Householder's QR goes column by column. The price is an error that grows with the square of the condition
        (Yamamoto et al. 2015): a matrix that was orthogonal before a step has one near 1. Where the step left it no
        rank, the result is not finite, as the next loss then says.
        """
        weight = read_whole(self.weight)
        tall = weight.shape[0] >= weight.shape[1]
        columns = weight if tall else weight.T
        factor, _ = torch.linalg.cholesky_ex(columns.T @ columns)
        q = torch.linalg.solve_triangular(factor, columns.T, upper=False)
        self.weight.copy_(place_like(q.T if tall else q, self.weight))


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
