"""The weights of a module that training can change, as plain tensors."""

from collections.abc import Mapping

from torch import Tensor, nn


def read_trained(module: nn.Module) -> dict[str, Tensor]:
    """Give the weights of a module, less those that are frozen: all that training can change."""
    everything = module.named_parameters(remove_duplicate=False)  # tied weights have several names
    frozen = {name for name, weight in everything if not weight.requires_grad}
    return {name: weight for name, weight in module.state_dict().items() if name not in frozen}


def copy_trained(module: nn.Module) -> dict[str, Tensor]:
    """Copy what `read_trained` gives to the CPU, so that further training leaves it."""
    return {name: weight.detach().cpu().clone() for name, weight in read_trained(module).items()}


def write_trained(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights that `read_trained` gave back into their module. Raises RuntimeError where they do not fit."""
    missing = set(read_trained(module)) - set(weights)
    unexpected = module.load_state_dict(weights, strict=False).unexpected_keys
    if missing or unexpected:
        raise RuntimeError(f"these weights are of another model: {sorted(missing)} missing, {unexpected} unknown")
