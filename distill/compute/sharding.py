"""A student whose weights several processes share: FSDP2, torch.distributed.fsdp.fully_shard.

Each process keeps its part of every weight, of its gradient and of its moments, as a DTensor that is cut along its
first dimension. A layer is put together where it is computed, and taken apart again. Source: Zhao et al.,
arXiv:2304.11277; torch's documentation of fully_shard.
"""

from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Placement, Shard, distribute_tensor


def shard(
    module: nn.Module,
    layers: Sequence[nn.Module],
    doors: Iterable[nn.Module],
    device: torch.device,
    half: torch.dtype | None = None,
) -> None:
    """Share out the weights of `module`, which lie on the CPU, over all processes, each on its `device`.

    Each of the `layers` is put together on its own, in the type `half` where it is given; all other weights together,
    as they are. So no device ever holds more of them: what autocast casts, a whole student in 16 bits, it would keep
    until the way back. Gradients are summed over the processes. `doors` are parts of `module` that are called directly,
    too: the weights outside the layers are put together for these. All processes must call it, and then, together,
    `module` itself once without a gradient, before any door.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # a sum: each process has its share of one loss
            part.set_force_sum_reduction_for_comms(True)
    for door in dict.fromkeys(doors):
        door.register_forward_pre_hook(partial(_put_together, module))


def _put_together(module: Any, *_: object) -> None:
    module.unshard()


def take_apart(module: nn.Module) -> None:
    """Leave to a process its part alone of what a call of a sharded `module` put together and kept for the way back."""
    if isinstance(module, FSDPModule):
        module.reshard()


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether a process has its part of a tensor only."""
    return isinstance(tensor, DTensor)


def read_whole(tensor: Tensor) -> Tensor:
    """Give a tensor as a whole, in every process; all must call it together where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_to_cpu(tensor: Tensor) -> Tensor:
    """Copy a tensor, or of a sharded one this process's part, to the CPU."""
    if not isinstance(tensor, DTensor):
        return tensor.detach().cpu().clone()
    own = tensor.to_local().detach().cpu().clone()
    return _wrap(own, tensor, _on_cpu(tensor.device_mesh.size()))


def make_part(shape: Sequence[int], dtype: torch.dtype, processes: int) -> Tensor:
    """Make a tensor of zeros on the CPU, of which each of the `processes` has its part, as shard cuts it."""
    mesh = _on_cpu(processes)
    return torch.distributed.tensor.zeros(*shape, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])


def place_like(value: Tensor, target: Tensor) -> Tensor:
    """Give a value, whole or sharded over the same processes, as `target` is: on its device, and sharded as it is."""
    if not isinstance(target, DTensor):
        return value
    if isinstance(value, DTensor):
        return _wrap(value.to_local().to(target.to_local().device), target, target.device_mesh)
    # Every process has the whole value, and keeps its part of it.
    return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)


def _wrap(own: Tensor, like: DTensor, mesh: DeviceMesh) -> DTensor:
    placements: Sequence[Placement] = like.placements
    return DTensor.from_local(own, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


@cache
def _on_cpu(processes: int) -> DeviceMesh:
    """Give the processes as a mesh of CPUs, which copies of what lies on GPUs are described by."""
    return init_device_mesh("cpu", (processes,))
