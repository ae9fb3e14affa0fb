"""How many weights the parts of a pipeline have, counted by their configs: none is loaded for that."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from shared.frozen_models import quiet_transformers

_LIBRARIES = ("diffusers", "transformers")


def count_weights(library: str, kind: str, config: Mapping[str, Any]) -> int:
    """Count the weights of a part of a pipeline: 0 of a tokenizer, a scheduler, or what is no network otherwise.

    `library` and `kind` are as model_index.json names its class, `config` as its config.json has it.
    """
    import torch

    with quiet_transformers():
        module = import_module(library if library in _LIBRARIES else f"diffusers.pipelines.{library}")
        made: Any = getattr(module, kind, None)
    if not isinstance(made, type) or not issubclass(made, torch.nn.Module):
        return 0
    with torch.device("meta"):
        built: Any = made
        config_class = getattr(made, "config_class", None)  # of transformers
        network = built.from_config(dict(config)) if config_class is None else built(config_class.from_dict(config))
    return sum(weights.numel() for weights in network.parameters())
