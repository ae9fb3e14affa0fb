"""Where a run computes, and in what precision."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from distill.config import Precision
from shared.errors import UsageError


@dataclass(frozen=True, slots=True)
class Device:
    """A torch device, and whether the student's model runs in bfloat16 there; weights are float32 always."""

    device: torch.device
    bfloat16: bool

    def autocast(self) -> AbstractContextManager[None]:
        """The context that the student's model runs in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)


def choose_device(name: str, precision: Precision) -> Device:
    """Find a device: "auto" is a GPU where there is one, and bfloat16 where the hardware has it. Raises UsageError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if precision == "auto":
        return Device(device, _has_bfloat16(device))
    return Device(device, precision == "bfloat16")


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Other CPUs emulate it, slower than float32.
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
