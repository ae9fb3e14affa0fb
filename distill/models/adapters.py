"""LoRA (arXiv:2106.09685): a student whose encoder stays as it came, and learns through low-rank updates of it."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from distill.config import LoraTargets
from distill.models.locating import locate
from shared.errors import SourceError, require_extra
from shared.sources import ResolvedModel, resolve_model

ALPHA_PER_RANK = 2  # the update is scaled by alpha / rank: a constant, so that a rank can change and the rate stay
_CONFIG = "adapter_config.json"


def unwrap(model: Any) -> Any:
    """Give the transformers classifier in `model`, which peft may have wrapped."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def add_lora(model: Any, source: ResolvedModel, rank: int, targets: LoraTargets, fresh: Iterable[str]) -> Any:
    """Wrap `model` as peft does: updates of `rank` for the target modules, the rest of its encoder frozen.

    What no checkpoint has trained yet is trained in full and kept with the adapter: all modules outside the encoder,
    and those that hold a weight of `fresh`, which the checkpoint lacked. `targets` "default" are the ones that peft
    knows for the architecture (queries and values, mostly). Raises SourceError where it knows none.
    """
    require_extra("lora", "peft")
    from peft import TaskType

    encoder = model.base_model_prefix
    whole = {
        name for name, child in model.named_children() if name != encoder and any(True for _ in child.parameters())
    }
    whole |= {name.rpartition(".")[0] for name in fresh if name.partition(".")[0] == encoder}
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return _wrap(
        model,
        source,
        task_type=TaskType.SEQ_CLS,
        r=rank,
        target_modules=None if targets == "default" else targets,
        exclude_modules=[name for name in linear if any(f"{name}.".startswith(f"{full}.") for full in whole)],
        modules_to_save=sorted(whole),
    )


def add_causal_lora(model: Any, source: ResolvedModel, rank: int, targets: LoraTargets) -> Any:
    """Wrap a causal language model as peft does: updates of `rank` for the target modules, all else frozen.

    `targets` are those of add_lora; all linear layers are all but the head. Raises SourceError where peft knows none.
    """
    require_extra("lora", "peft")
    from peft import TaskType

    wanted = None if targets == "default" else targets
    return _wrap(model, source, task_type=TaskType.CAUSAL_LM, r=rank, target_modules=wanted)


def _wrap(model: Any, source: ResolvedModel, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(lora_alpha=ALPHA_PER_RANK * options["r"], revision=source.revision, **options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft still asks transformers under an old name
            return get_peft_model(model, config)
    except ValueError as error:
        raise SourceError(f"peft cannot adapt the student {source.source}: {error}; try all-linear targets") from error


def halve_frozen(model: nn.Module, half: torch.dtype) -> None:
    """Keep the frozen linear weights of a model in a type of 16 bits, where autocast computes in that anyway.

    Autocast rounds them so in every step: the outputs stay the same, and the weights take half the memory. Norms and
    embeddings, which it leaves alone, stay in float32, with the head that is tied to them; so does all that is trained.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if not isinstance(module, nn.Linear) or id(module.weight) in embedded:
            continue
        if not any(weight.requires_grad for weight in module.parameters()):
            module.to(half)


def is_adapter(folder: str) -> bool:
    """Tell whether a folder holds an adapter, and not a whole model."""
    return Path(folder, _CONFIG).is_file()


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter, and the config.json of the classifier that it belongs to."""
    write_adapter(model, folder)
    classifier = unwrap(model)
    classifier.config.architectures = [type(classifier).__name__]  # its base's, a causal model's too, came with it
    classifier.config.save_pretrained(folder)


def write_adapter(model: Any, folder: Path) -> None:
    """Write the adapter alone, as peft loads it on the base model."""
    model.save_pretrained(folder, save_embedding_layers=False)  # "auto" would ask the hub
    (folder / "README.md").unlink(missing_ok=True)  # a template of peft's, with nothing filled in


def load_adapter(source: ResolvedModel) -> Any:
    """Load the adapter of a folder on its base model, in float32, as peft wraps it. Raises SourceError.

    Code that comes with the base model runs where `source` is trusted to.
    """
    require_extra("lora", "peft")
    from peft import PeftConfig, PeftModel

    adapter = PeftConfig.from_pretrained(source.location)
    name, revision = adapter.base_model_name_or_path, adapter.revision
    base = replace(resolve_model(f"{name}@{revision}" if revision else name), trusts_code=source.trusts_code)
    model = AutoModelForSequenceClassification.from_pretrained(
        base.location,
        config=AutoConfig.from_pretrained(source.location, **locate(source)),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        **locate(base),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        return PeftModel.from_pretrained(model, source.location)


def merge_adapter(model: Any) -> Any:
    """Work the adapter, if any, into the classifier's weights."""
    return model if unwrap(model) is model else model.merge_and_unload()
