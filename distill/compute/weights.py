"""The weights of a module that training can change, and the state of its optimiser, as plain tensors or their parts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.compute.sharding import copy_to_cpu, place_like, read_whole


def read_trained(module: nn.Module) -> dict[str, Tensor]:
    """Give the weights of a module, less those that are frozen: all that training can change."""
    everything = module.named_parameters(remove_duplicate=False)  # tied weights have several names
    frozen = {name for name, weight in everything if not weight.requires_grad}
    return {name: weight for name, weight in module.state_dict().items() if name not in frozen}


def copy_trained(module: nn.Module) -> dict[str, Tensor]:
    """Copy what `read_trained` gives to the CPU, so that further training leaves it."""
    return {name: copy_to_cpu(weight) for name, weight in read_trained(module).items()}


def write_trained(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights that `read_trained` gave back into their module. Raises RuntimeError where they do not fit.

    They may be whole where the module is sharded.
    """
    trained = read_trained(module)
    placed = {name: place_like(value, trained[name]) if name in trained else value for name, value in weights.items()}
    missing = set(trained) - set(weights)
    unexpected = module.load_state_dict(placed, strict=False).unexpected_keys
    if missing or unexpected:
        raise RuntimeError(f"these weights are of another model: {sorted(missing)} missing, {unexpected} unknown")


@torch.no_grad()
def collect_trained(module: nn.Module, into: nn.Module | None) -> None:
    """Copy the trained weights of a sharded module `into` one that is not, one after the other.

    All processes must call it together; those that pass None keep none of them.
    """
    places = {} if into is None else into.state_dict()
    for name, weight in read_trained(module).items():
        whole = read_whole(weight)
        if into is not None:
            places[name].copy_(whole)


def write_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Bring an optimiser to a state that state_dict gave, of the whole weights or of parts of them."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = {
        index: {name: _place_moment(value, weights[index]) for name, value in each.items()}
        for index, each in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def _place_moment(value: Any, weight: Tensor) -> Any:
    """Give what an optimiser keeps of a weight as that is; a count of steps stays whole."""
    return place_like(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value
