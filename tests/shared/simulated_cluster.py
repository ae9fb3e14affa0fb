"""A Ray cluster that is simulated on this machine: nodes that are killed, and others that join."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def simulate_cluster(nodes: int) -> Iterator[Any]:
    """A ray.cluster_utils.Cluster of so many nodes, each a NODE, and a head that has no core."""
    from ray.cluster_utils import Cluster

    os.environ.update(RAY_worker_niceness="0")  # else whatever runs beside the test goes before it
    made: Any = Cluster(True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            made.add_node(wait=False, **NODE)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()
