"""The method of a run, by the kind of its task: label heads, or a student that writes."""

from pathlib import Path

from distill.compute.devices import Device
from distill.config import TEXT_KINDS, DistillConfig
from distill.data.run_rows import RunRows
from distill.methods import controls
from distill.methods.generative import Generative
from distill.methods.materials import FoundModel, check_labels, gather_materials
from distill.methods.writing import check_writing, gather_writing
from distill.training.method import Method
from shared.shards.manifest import Manifest


def check_task(config: DistillConfig, manifest: Manifest) -> None:
    """Raise UsageError for a task that the config's method cannot train."""
    if manifest.kind in TEXT_KINDS:
        check_writing(config, manifest)
    else:
        check_labels(config, manifest)


def make_method(
    config: DistillConfig, rows: RunRows, found: FoundModel, device: Device, work: Path, frozen: Path | None = None
) -> Method:
    """Make the method that a config asks for; the arguments are those of distill.methods.materials.Materials.

    Raises what reading the teacher's answers does, SourceError, and UsageError for what the shards cannot give.
    """
    if rows.manifest.kind in TEXT_KINDS:
        return Generative(gather_writing(config, rows, found, device, work))
    return controls.make_method(gather_materials(config, rows, found, device, work, frozen))
