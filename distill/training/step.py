"""One step of an optimiser, and the seeds of what is drawn."""

from hashlib import sha256

import torch
from torch import Tensor, nn

from distill.compute.gradients import GradientSums

CLIP_NORM = 1.0
SKIPPED = "student/skipped"  # the term of a step that was left out


def derive_seed(seed: int, *names: object) -> int:
    """Derive a seed for each use, so that what one part draws does not change what another gets."""
    return int.from_bytes(sha256("\0".join(map(str, (seed, *names))).encode()).digest()[:4], "big")


def take_step(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Go one step down the gradient of `loss`, clipped to the norm CLIP_NORM."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
    optimizer.step()


def end_step(
    module: nn.Module, optimizer: torch.optim.Optimizer, sums: GradientSums, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """Go one step down the gradients that were summed since they were 0, clipped to the norm CLIP_NORM.

    `sums` brings them to their sums over the processes, each of which computed its share of the batch; they are divided
    by the scale of `scaler`, where that is enabled. Then a step whose gradients are not finite is left out, and its
    SKIPPED, which is given, is 1 and not 0: no step waits for the device to know.
    """
    sums.finish()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
    scaler.step(optimizer)
    scaler.update()
    return {SKIPPED: 1 - norm.isfinite().float()} if scaler.is_enabled() else {}
