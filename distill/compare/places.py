"""Where the cells of a comparison are trained: a worker process a GPU, or, without any, one a core."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"  # read by CUDA, and by torch on AMD's GPUs
ANY_GPU = frozenset({"auto", "cuda"})  # devices that leave open which GPU it is


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker process computes: with so many CPU `threads`, and with one `gpu`.

    `gpu` is as CUDA_VISIBLE_DEVICES names it, a number or an id; None leaves the worker all that this process sees.
    """

    gpu: str | None
    threads: int = 1


def choose_places(cells: int, gpus: Sequence[str], cores: int, workers: int | None = None) -> list[Place]:
    """Choose the places of the workers that train so many cells: one a GPU, or without any, one a core.

    `workers` is how many there are instead: several share a GPU where they are more than the GPUs, in turn. There are
    never more than cells. A worker on a CPU has one thread, for two threads that share a core with another process are
    slower than one; beside a GPU, the workers share all cores.
    """
    count = min(workers or len(gpus) or cores, cells)
    if not gpus:
        return [Place(None)] * count
    return [Place(gpus[number % len(gpus)], max(1, cores // count)) for number in range(count)]


def list_gpus(devices: Collection[str]) -> list[str]:
    """List the GPUs that runs on these `devices` may be spread over; none where one of them says where it computes."""
    import torch

    if not ANY_GPU.issuperset(devices):
        return []
    return name_gpus(torch.cuda.device_count(), os.environ.get(VISIBLE))


def name_gpus(count: int, visible: str | None) -> list[str]:
    """Name the GPUs that a process sees, as CUDA_VISIBLE_DEVICES does; `visible` is its value in that process."""
    if visible is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in visible.split(",")][:count]
