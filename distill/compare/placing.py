"""What a user says about where the cells of a comparison are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from shared.cluster import check_address, check_reachable, check_resources, parse_resources, show_resources
from shared.errors import UsageError, require_extra
from shared.options import Option, check_options


@dataclass(frozen=True, slots=True)
class Placing:
    """How many cells are trained at a time, and where. Raises UsageError for what does not go together."""

    workers: Annotated[
        int | None,
        Option(
            "How many cells are trained at a time: one a GPU unless given, or where there is none, one a core; on a "
            "cluster as many as it has room for.",
            at_least=1,
        ),
    ] = None
    cluster: Annotated[
        str | None,
        Option(
            "Where cells are trained: ray, on the cluster that RAY_ADDRESS names or this machine is part of; or "
            "ray://HOST:10001. All machines must see the folders of shards and runs. Unless given, on this machine.",
            flag="--on",
            metavar="ray[://ADDRESS]",
        ),
    ] = None
    per_cell: Annotated[
        Mapping[str, float] | None,
        Option(
            "What each cell has on a cluster: gpus=1,cpus=2. Part of a GPU is shared: gpus=0.25. Unless given, one "
            "core, and a GPU where the cluster has any.",
            parse=parse_resources,
            show=show_resources,
            metavar="gpus=N,cpus=N",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.cluster is not None:
            check_address(self.cluster, "cells are trained")
        if self.per_cell is None:
            return
        check_resources("--per-cell", self.per_cell)
        if (gpus := self.per_cell.get("gpus", 0)) > 1:
            raise UsageError(f"--per-cell gpus={gpus:g}: a cell is one process, which computes on one GPU at most")
        if self.cluster is None:
            raise UsageError(
                "--per-cell says what each cell has on a cluster: give --on ray, too. On this machine --workers says "
                "how many cells share it"
            )

    def check_cluster(self) -> None:
        """Raise MissingExtraError or ClusterError where a cluster was named and cannot be joined from here."""
        if self.cluster is not None:
            require_extra("ray", "ray")
            check_reachable(self.cluster)
