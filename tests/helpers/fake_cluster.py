"""A real Ray cluster on loopback whose nodes are processes of this machine, with GPUs that do not exist."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class FakeCluster:
    """A head without GPUs, and nodes that come and go.

    Attributes:
        address: Of its head.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 2, "num_gpus": 0, "include_dashboard": False, **LOOPBACK}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address

    def add(self, gpus: int, path: Path | None = None):
        """Starts a node; `path` comes first where its processes look for modules."""
        variables = {"PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, HERE, ROOT))))}
        return self._cluster.add_node(num_cpus=2, num_gpus=gpus, env_vars=variables, **LOOPBACK)

    def remove(self, node) -> None:
        """Ends a node at once, as when its machine is switched off."""
        self._cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


LOOPBACK = {"node_ip_address": "127.0.0.1"}
# Ray kills workers where a machine's memory is nearly full, whoever filled it, and lets all others go before them.
VARIABLES = {"RAY_memory_monitor_refresh_ms": "0", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def fake_cluster(*gpus: int) -> Iterator[FakeCluster]:
    """A cluster with a node for every number of GPUs."""
    # Ray would turn 127.0.0.1 into the machine's address and listen on all interfaces.
    with (
        patch.dict(os.environ, VARIABLES),
        patch("ray._private.services.resolve_ip_for_localhost", lambda host: host),
    ):
        cluster = FakeCluster()
        try:
            for count in gpus:
                cluster.add(count)
            yield cluster
        finally:
            cluster.end()
