"""One step of an optimiser, and the seeds of what is drawn."""

from hashlib import sha256

import torch
from torch import Tensor, nn

from distill.compute.processes import Processes

CLIP_NORM = 1.0


def derive_seed(seed: int, *names: object) -> int:
    """Derive a seed for each use, so that what one part draws does not change what another gets."""
    return int.from_bytes(sha256("\0".join(map(str, (seed, *names))).encode()).digest()[:4], "big")


def take_step(
    module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, processes: Processes | None = None
) -> None:
    """Go one step down the gradient of `loss`, clipped to the norm CLIP_NORM.

    With `processes`, each of which computed its share of the batch, gradients are summed over them first.
    """
    optimizer.zero_grad()
    loss.backward()
    end_step(module, optimizer, processes)


def end_step(module: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes | None = None) -> None:
    """Go one step down the gradients that were summed since they were 0: see take_step."""
    if processes is not None:
        processes.sum_gradients(module)
    nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
    optimizer.step()
