"""What several processes share of a run: the rows of a batch, or the student's weights too."""

from dataclasses import replace

import torch

from distill.compute.devices import Device
from distill.compute.memory import keep_freed_memory
from distill.config import DistillConfig
from shared.console import say
from shared.errors import UsageError


def prepare_device(config: DistillConfig, device: Device) -> Device:
    """Make a device ready to train on, and settle what its processes share. Raises UsageError where they cannot."""
    if device.device.type == "cpu":
        keep_freed_memory()
    if config.training.parallel == "ddp":
        return device
    if device.processes.count == 1:
        say("parallel fsdp shares a student out over several processes, and this is one: it keeps the whole student")
        return device
    check_sharding(config, device)
    return replace(device, processes=replace(device.processes, shards=True))


def check_sharding(config: DistillConfig, device: Device) -> None:
    """Raise UsageError for what does not go with a student whose weights are shared out."""
    if device.half == torch.float16:
        raise UsageError(
            "parallel fsdp goes without float16, whose loss is scaled: give --precision bfloat16 where the cards "
            "compute it, or float32"
        )
    if config.student.frozen_layers is not None:
        raise UsageError("parallel fsdp goes without frozen_layers: give --lora RANK to train less of the student")
    if not config.method.traits.trains_student:
        raise UsageError(f"parallel fsdp is for a student that is trained; control {config.method.control} trains none")
