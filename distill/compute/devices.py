"""Where a run computes, and in what precision."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distill.compute.processes import Processes, local_rank
from distill.config import Precision
from shared.frozen_models import check_device

Array = np.ndarray[Any, Any]

# Tokens of a batch that is scored, padding included: what keeps a GPU busy, and what the caches of a CPU hold.
_GPU_TOKENS, _CPU_TOKENS = 32768, 2048


@dataclass(frozen=True, slots=True)
class Device:
    """A torch device, and the type of 16 bits that the student's model runs in there, `half`; None for float32.

    Weights are float32 always. `processes` are those that compute together, each on a device of its own.
    """

    device: torch.device
    half: torch.dtype | None = None
    processes: Processes = Processes()

    def describe_half(self) -> dict[str, bool]:
        """Say which type of 16 bits it is, as metrics.json has it."""
        return {"bfloat16": self.half == torch.bfloat16, "float16": self.half == torch.float16}

    def move_to_cpu(self) -> "Device":
        """Give the CPU of this process alone, with the same type of 16 bits."""
        return Device(torch.device("cpu"), self.half)

    def autocast(self) -> AbstractContextManager[None]:
        """Give the context that the student's model runs in."""
        return torch.autocast(self.device.type, dtype=self.half or torch.bfloat16, enabled=self.half is not None)

    def make_scaler(self) -> torch.amp.GradScaler:
        """Make what scales a loss so that gradients do not vanish in float16; elsewhere it does nothing.

        A step whose gradients overflow is left out, and the scale halved (Micikevicius et al., arXiv:1710.03740).
        """
        return torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)

    def split_by_tokens(self, lengths: Array) -> Iterator[tuple[int, int]]:
        """Split rows of falling length (n,) into batches that are scored together, and give each one's start and end.

        A batch holds so many tokens, padding included, as the device computes well at once, or one longer row.
        """
        budget = self.processes.count * (_CPU_TOKENS if self.device.type == "cpu" else _GPU_TOKENS)
        start = 0
        while start < len(lengths):
            end = min(len(lengths), start + max(1, budget // max(1, int(lengths[start]))))
            yield start, end
            start = end

    def seed(self, value: int) -> None:
        """Seed what the device draws from. On a CPU it is a hundred times faster than torch.manual_seed."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(value)
        else:
            torch.manual_seed(value)


def choose_device(name: str, precision: Precision, processes: Processes | None = None) -> Device:
    """Find a device: "auto" is a GPU where there is one. Raises UsageError.

    Precision auto is bfloat16 where the hardware has it, float16 on other NVIDIA cards, and else float32.
    Of several processes on one machine, each takes the GPU of its own number.
    """
    processes = processes or Processes()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and processes.count > 1:
        name = f"cuda:{local_rank()}"
    check_device(name, "auto, cpu, cuda or cuda:0")
    device = torch.device(name)
    if device.type == "cuda" and precision != "float32":
        torch.set_float32_matmul_precision("high")  # TF32, for what is not in bfloat16: heads, and the aligner
    if precision == "auto":
        slow = torch.float16 if device.type == "cuda" else None
        return Device(device, torch.bfloat16 if _has_bfloat16(device) else slow, processes)
    return Device(device, {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision), processes)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Other CPUs emulate it, slower than float32.
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
