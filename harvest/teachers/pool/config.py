"""What a user says about replicas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from shared.cluster import check_address, check_resources, parse_resources, show_resources
from shared.errors import UsageError
from shared.options import Option, check_options

_PANEL = "Replicas"


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
        if self.cluster is not None:
            check_address(self.cluster, "replicas run")
        if self.replicas is None and (self.cluster is not None or self.per_replica is not None):
            option = "--per-replica" if self.cluster is None else "--on"
            raise UsageError(f"{option} says where replicas run: give their number with --replicas")
        check_resources("--per-replica", self.per_replica or {})
