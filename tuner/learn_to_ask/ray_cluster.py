"""Finds the Ray cluster of a run, asks it what it has, and ends what a killed run left on it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from tuner.learn_to_ask.errors import UserError

_CONNECT_SECONDS = 4.0
_ANSWER_SECONDS = 8.0  # connecting included, both stay below what a person waits for
_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Which cluster a run is meant for.

    Attributes:
        address: `host:port` of its head; `None` when the run starts one of its own.
        source: The setting that names it, for messages.
    """

    address: str | None
    source: str = ""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A running cluster.

    Attributes:
        gpus: Of each node alive, in Ray's order.
        cpus: Of all nodes.
        memory: Of all nodes, in bytes.
    """

    gpus: tuple[int, ...]
    cpus: int
    memory: int


def cluster_address(ray_address: str | None, *, setting: str = "cluster.ray_address") -> ClusterAddress:
    """Decides which cluster a run uses.

    `ray.init()` would also take any cluster whose processes it sees on this machine, such as the private one of
    another run. Here a cluster has to be named, or started with `ray start`, which records its address.

    Args:
        ray_address: `local`, `auto`, `host:port` or nothing.
        setting: The key or flag that it comes from, for messages.

    Raises:
        UserError: When `auto` finds none, or the address has no port.
    """
    from ray._private.utils import read_ray_address  # what `ray start` records; there is no public reader

    variable = os.environ.get("RAY_ADDRESS", "")
    if ray_address not in (None, "", "auto"):
        place = ClusterAddress(ray_address, setting)
    elif variable not in ("", "auto"):
        place = ClusterAddress(variable, "RAY_ADDRESS")
    else:
        recorded = read_ray_address()
        place = ClusterAddress(recorded if recorded and _listens(recorded) else None, "`ray start` on this machine")
        if place.address is None and "auto" in (ray_address, variable):
            source = setting if ray_address == "auto" else "RAY_ADDRESS"
            raise UserError(f"{source} auto: no cluster was started on this machine; `ray start --head` does")
    if place.address in (None, "local"):
        return ClusterAddress(None, place.source if place.address else "")
    if not str(place.address).rpartition(":")[2].isdigit():
        raise UserError(f"{place.source} {place.address}: an address of the form host:port is expected")
    return place


def _connect(address: str) -> None:
    """Opens a connection and closes it; Ray itself would try for minutes.

    Raises:
        OSError: When nothing listens there.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
        pass


def _listens(address: str) -> bool:
    """Whether something listens at an address; the record of `ray start` outlives its cluster."""
    try:
        _connect(address)
    except (OSError, ValueError):
        return False
    return True


# In processes of their own: connecting leaves threads and settings behind that tune() would run into.
_PROBE = """
import json, sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=float(sys.argv[2]))
print(json.dumps([dict(node.resources_total) for node in nodes.values() if node.state == 0]))
"""
_END_STALE_ACTORS = """
import json, sys, time, ray
address, namespace, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
ray.init(address=address, namespace=namespace, logging_level="ERROR", log_to_driver=False)
def present():
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in actors if actor["namespace"] == namespace]
names, end = present(), time.monotonic() + seconds
for name in names:
    try:
        ray.kill(ray.get_actor(name))
    except ValueError:
        pass  # gone in the meantime
while present() and time.monotonic() < end:
    time.sleep(0.2)
print(json.dumps([names, present()]))
"""


def gpu_table(rows: Iterable[tuple[str, int, str]]) -> str:
    """Who gets how many GPUs, as a small table.

    Args:
        rows: Name, GPUs and a note.
    """
    rows = list(rows)
    width = max(8, *(len(name) + 1 for name, _, _ in rows))
    return "\n".join(f"{name:<{width}}{count:>4}  {note}".rstrip() for name, count, note in rows)


def probe_cluster(address: str) -> RayCluster:
    """Asks a running cluster for its resources, within a few seconds.

    Args:
        address: `host:port` of its head.

    Raises:
        ConnectionError: When none answers, or it wants a token, in words that say what to do.
    """
    _connect(address)
    try:
        output = _in_a_process(_PROBE, address, str(_ANSWER_SECONDS / 2), seconds=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired as error:
        said = f"something listens there and does not answer as Ray within {_ANSWER_SECONDS:g} s, a stale session or "
        raise ConnectionError(f"{said}another program") from error
    nodes: list[dict[str, float]] = json.loads(output)
    return RayCluster(
        gpus=tuple(int(node.get("GPU", 0)) for node in nodes),
        cpus=int(sum(node.get("CPU", 0) for node in nodes)),
        memory=int(sum(node.get("memory", 0) for node in nodes)),
    )


def end_stale_actors(address: str, namespace: str) -> list[str]:
    """Ends the actors that a killed run of this name left behind.

    Trinity's Synchronizer outlives its run. The next one of the same name would attach to it, with a request of the
    dead explorer still pending, and both sides would wait for each other. Call it only when no such run is under way.

    Args:
        address: Of the cluster.
        namespace: Of the run, see `RunConfig.namespace`.

    Returns:
        The names of what was there.

    Raises:
        UserError: When some of it cannot be ended.
    """
    try:
        output = _in_a_process(_END_STALE_ACTORS, address, namespace, str(_END_SECONDS / 2), seconds=_END_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the Ray cluster at {address} does not answer within {_END_SECONDS:g} s; is it still running? "
            "RAY_ADDRESS=local starts a cluster for this run alone"
        ) from error
    except ConnectionError as error:
        raise UserError(f"the Ray cluster at {address} does not answer: {error}; is it still running?") from error
    names, left = json.loads(output)
    if left:
        raise UserError(
            f"actors of an earlier run of this name do not end: {', '.join(left)}; restart the cluster at {address} "
            "or give this run another `name` in config.yaml"
        )
    return list(names)


def _in_a_process(script: str, *arguments: str, seconds: float) -> str:
    """The last line that a script prints.

    Raises:
        ConnectionError: When it fails, with Ray's own words.
        subprocess.TimeoutExpired: When it takes too long.
    """
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["Ray did not connect"])[-1]
        if "AuthenticationError" in done.stderr:
            last = (
                "it wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH as for its "
                "`ray start`"
            )
        raise ConnectionError(last)
    return done.stdout.splitlines()[-1]
