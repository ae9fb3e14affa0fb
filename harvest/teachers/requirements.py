"""What a teacher needs of this machine, and what of it is missing: nothing heavy is imported, nothing downloaded."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared.errors import SourceError
from shared.sources import locate_model

_NO_DEVICES = {"", "-1", "none", "NoDevFiles"}


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a teacher needs.

    `packages` are modules that the extra `extra` installs. `weights` is the option that names the model whose weights
    it loads, and `index` the file that makes a folder such a model. `memory` says in a few words what it takes.
    `gpu`: only a GPU will do, unless the build of vLLM is for something else. `given` is what the user has to name.
    """

    extra: str | None = None
    packages: tuple[str, ...] = ()
    weights: str | None = None
    index: str = "config.json"
    memory: str = ""
    gpu: bool = False
    given: str = ""


def find_missing(
    requirements: Requirements, options: Mapping[str, Any], find_hub_problem: Callable[[], str | None]
) -> list[str]:
    """What is not here, each with what to do about it; empty where the teacher can run.

    `options` are those of the teacher, with its defaults: they say which model is meant. `find_hub_problem` is as
    shared.sources.check_hub.
    """
    missing = find_missing_locally(requirements)
    source = options.get(requirements.weights) if requirements.weights else None
    if source is not None:
        try:
            locate_model(source, requirements.index, find_hub_problem)
        except SourceError as error:
            missing.append(f"its model: {error}. --{requirements.weights} names another")
    return missing


def find_missing_locally(requirements: Requirements) -> list[str]:
    """As find_missing, but for the model: nobody is asked."""
    missing = []
    if absent := find_absent(requirements):
        missing.append(
            f"the {'package' if len(absent) == 1 else 'packages'} {', '.join(absent)}: "
            f"pip install 'harvest-distill[{requirements.extra}]'"
        )
    if requirements.gpu and not has_gpu() and not _runs_without_gpu():
        missing.append(
            f"a GPU ({requirements.memory}): none is to be seen here; vLLM's build for CPUs needs none, but is slow"
        )
    return missing


def find_absent(requirements: Requirements) -> list[str]:
    """The packages that are not installed."""
    return [name for name in requirements.packages if find_spec(name) is None]


def has_gpu() -> bool:
    """Whether the driver of an NVIDIA or AMD GPU shows one, and no environment variable hides it."""
    nvidia = any(Path("/dev").glob("nvidia[0-9]*")) or any(Path("/proc/driver/nvidia/gpus").glob("*"))
    nvidia = nvidia or Path("/dev/dxg").exists()  # of the Windows subsystem for Linux
    if nvidia and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in _NO_DEVICES:
        return True
    return Path("/dev/kfd").exists() and os.environ.get("HIP_VISIBLE_DEVICES", "all") not in _NO_DEVICES


def _runs_without_gpu() -> bool:
    """Whether the vLLM that is installed was built for a CPU or an accelerator of another kind."""
    try:
        label = version("vllm").partition("+")[2]
    except PackageNotFoundError:
        return False
    return label != "" and not label.startswith(("cu", "rocm"))
