"""What a user says about replicas."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Annotated

from shared.errors import UsageError
from shared.options import Option, check_options
from shared.suggestions import suggest

RESOURCES = ("cpus", "gpus")
RAY = "ray"
_PANEL = "Replicas"


def parse_resources(text: str) -> dict[str, float]:
    """Read `gpus=1,cpus=2` as amounts by name. Raises ValueError that says what to give."""
    amounts: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in RESOURCES:
            raise ValueError(suggest(name, RESOURCES, there="a replica can be given"))
        try:
            amounts[name] = float(number)
        except ValueError:
            amounts[name] = nan
        if not isfinite(amounts[name]):
            raise ValueError(f"give a number, {name}=1")
    return amounts


def show_resources(amounts: Mapping[str, float]) -> str:
    """Write amounts as `parse_resources` reads them."""
    return ",".join(f"{name}={amount:g}" for name, amount in amounts.items())


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """How many replicas of the teacher answer, and where. Raises UsageError for what does not go together."""

    replicas: Annotated[
        int | None,
        Option(
            "Processes that each hold the teacher and answer side by side. Unless given, none: it is in this one.",
            at_least=1,
            panel=_PANEL,
        ),
    ] = None
    cluster: Annotated[
        str | None,
        Option(
            "Where replicas run: ray, on the cluster that RAY_ADDRESS names or this machine is part of; or "
            "ray://HOST:10001. Unless given, on this machine.",
            flag="--on",
            metavar="ray[://ADDRESS]",
            panel=_PANEL,
        ),
    ] = None
    per_replica: Annotated[
        Mapping[str, float] | None,
        Option(
            "What each replica has: gpus=1,cpus=2. Part of a GPU is shared: gpus=0.25. Unless given, on this machine "
            "an equal share of all, and on Ray one core, and a GPU where the teacher needs one.",
            parse=parse_resources,
            show=show_resources,
            metavar="gpus=N,cpus=N",
            panel=_PANEL,
        ),
    ] = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.cluster is not None and self.cluster != RAY and not self.cluster.startswith(f"{RAY}://"):
            raise UsageError(f"--on {self.cluster}: replicas run on ray, or on ray://HOST:10001")
        if self.replicas is None and (self.cluster is not None or self.per_replica is not None):
            option = "--per-replica" if self.cluster is None else "--on"
            raise UsageError(f"{option} says where replicas run: give their number with --replicas")
        for name, amount in (self.per_replica or {}).items():
            if amount < 0 or (name == "gpus" and amount > 1 and amount % 1):
                raise UsageError(f"--per-replica {name}={amount:g}: give 0 or more; beyond one GPU, whole ones")
            if name == "cpus" and (amount < 1 or amount % 1):
                raise UsageError(f"--per-replica {name}={amount:g}: give whole cores, 1 or more")
