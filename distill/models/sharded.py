"""Students whose weights several processes share: what of them is put together at a time."""

from typing import Any

import torch
from torch import nn

from distill.compute.devices import Device
from distill.compute.sharding import shard, take_apart
from distill.models.adapters import unwrap
from distill.models.classifier import Student
from distill.models.generator import Generator


def list_layers(model: Any) -> list[nn.Module]:
    """List the layers of a transformers model; none where it has no list of as many as its config says."""
    base = unwrap(model)
    count = base.config.get_text_config().num_hidden_layers
    stacks = (part for part in base.modules() if isinstance(part, nn.ModuleList) and len(part) == count)
    return list(next(stacks, ()))


def shard_student(student: Student | Generator, device: Device) -> None:
    """Share out the weights of a student, heads and all, over the processes, which then `wake` it together.

    Its `model` can still be called alone.
    """
    model = student.model
    doors = (model, unwrap(model), unwrap(model).base_model)
    shard(student, list_layers(model), doors, device.device, device.half)


def wake(student: Student | Generator, device: Device) -> None:
    """Run a sharded student once over a token: so it finds out what belongs together. All processes must call it."""
    student.eval()
    token = torch.ones(1, 1, dtype=torch.long, device=device.device)
    with torch.no_grad(), device.autocast():
        if isinstance(student, Generator):
            student(token, token)
        else:
            student({"input_ids": token, "attention_mask": token})
    take_apart(student)  # an optimiser must see the parts
