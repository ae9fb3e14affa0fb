"""What several processes share of a run: the rows of a batch, or the student's weights too."""

from dataclasses import replace

import torch

from distill.compute.devices import Device, choose_device
from distill.compute.memory import keep_freed_memory
from distill.compute.processes import Processes
from distill.config import DistillConfig
from distill.methods.materials import FoundModel
from distill.models.footprint import LEFT, count_state
from shared.console import say
from shared.errors import SourceError, UsageError


def prepare_device(config: DistillConfig, found: FoundModel, processes: Processes) -> Device:
    """Find the device, and settle what its processes share of the student `found`. Raises UsageError.

    That is for a device that is not there, or for what does not go with shared weights.
    """
    device = choose_device(config.training.device, config.training.precision, processes)
    if device.device.type == "cpu":
        keep_freed_memory()
    wanted, alone = config.training.parallel, processes.count == 1
    if wanted == "fsdp" and alone:
        say("parallel fsdp shares a student out over several processes, and this is one: it keeps the whole student")
    if alone or wanted == "ddp":
        return device
    conflict = find_conflict(config, device)
    if wanted == "fsdp" and conflict is not None:
        raise UsageError(conflict)
    if wanted == "auto":
        needs = conflict is None and outgrows(config, found, device)
        # All do the same, be one card smaller than the others.
        needed, hindered = processes.find_greatest(int(needs), int(conflict is not None))
        if hindered or not needed:
            return device
    return replace(device, processes=replace(processes, shards=True))


def outgrows(config: DistillConfig, found: FoundModel, device: Device) -> bool:
    """Tell whether what lasts of a student's training outgrows its card, and say so; memory of a CPU has no bound."""
    if device.device.type != "cuda":
        return False
    has = torch.cuda.get_device_properties(device.device).total_memory
    student = config.student
    try:
        needed = count_state(
            found.source, student.layers, adapts=student.lora_rank is not None, halves=bool(device.half)
        )
    except SourceError:  # whatever it is, loading it says so, or finds a way
        return False
    if needed > LEFT * has:
        say(
            f"the student's weights, gradients and moments take {needed / 1e9:.0f} GB, and a card has {has / 1e9:.0f}: "
            "the processes share them (--parallel fsdp)"
        )
    return needed > LEFT * has


def find_conflict(config: DistillConfig, device: Device) -> str | None:
    """Find what does not go with shared weights; None where all does."""
    if device.half == torch.float16:
        return (
            "parallel fsdp goes without float16, whose loss is scaled: give --precision bfloat16 where the cards "
            "compute it, or float32"
        )
    if config.student.frozen_layers is not None:
        return "parallel fsdp goes without frozen_layers: give --lora RANK to train less of the student"
    if not config.method.traits.trains_student:
        return f"parallel fsdp is for a student that is trained; control {config.method.control} trains none"
    return None
