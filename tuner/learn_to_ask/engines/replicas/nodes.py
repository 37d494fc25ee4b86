"""The Ray cluster that holds replicas: joining it, its GPUs, and whether all of its nodes are alike."""

import hashlib
import os
import platform
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tuner.learn_to_ask.cli import EXIT_TERMINATED
from tuner.learn_to_ask.engines.replicas.plan import Node
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.ray_cluster import cluster_address, probe_cluster

_ANSWER_SECONDS = 120.0  # a node's first process imports Ray before it answers
_REASON_LENGTH = 300

Facts = Mapping[str, str]  # what a node has, name -> version; "" for what is missing


class JoinedCluster:
    """A cluster that this process is a driver of: the running one, else one of this machine alone.

    A second one in the same process shares the connection of the first, which ends it. SIGTERM ends the process in
    order, as Ctrl-C does.
    """

    def __init__(self, ray_address: str | None, *, setting: str) -> None:
        """Joins; starts Ray where none is running.

        Args:
            ray_address: `host:port` of the head; `None` takes RAY_ADDRESS, then what was started on this machine.
            setting: The flag that it comes from, for messages.

        Raises:
            UserError: When the cluster cannot be reached, or this process is part of another one.
        """
        import ray

        place = cluster_address(ray_address, setting=setting)
        self.name = place.address or "this machine"
        self._first = not ray.is_initialized()
        if self._first:
            self._terminate = _handler_of_sigterm()
            # Where a node sees this checkout, its processes run this code; elsewhere what is installed there.
            variables = {"PYTHONPATH": f"{Path(__file__).parents[4]}{os.pathsep}${{PYTHONPATH}}"}
            settings = {"runtime_env": {"env_vars": variables}, "logging_level": "ERROR"}
            if place.address:
                _join(place.address, place.source, settings)
            else:
                ray.init(address="local", include_dashboard=False, **settings)
            _on_sigterm(_end_in_order)
        elif place.address and place.address != ray.get_runtime_context().gcs_address:
            raise UserError(f"{place.source} {place.address}: this run has joined another cluster; name one for all")

    def nodes(self) -> list[Node]:
        """The nodes alive, in the order of their addresses."""
        import ray
        from ray._private.state import available_resources_per_node  # there is no public one by node

        free = available_resources_per_node()
        alive = [node for node in ray.nodes() if node["Alive"]]
        shared = Counter(node["NodeManagerAddress"] for node in alive)
        found = []
        for node in alive:
            address = node["NodeManagerAddress"]
            found.append(
                Node(
                    id=node["NodeID"],
                    name=f"{address} ({node['NodeID'][:6]})" if shared[address] > 1 else address,
                    gpus=int(node["Resources"].get("GPU", 0)),
                    free=int(free.get(node["NodeID"], {}).get("GPU", 0)),
                )
            )
        return sorted(found, key=lambda node: node.name)

    def close(self) -> None:
        """Leaves it; Ray ends where it was started here."""
        import ray

        if self._first and ray.is_initialized():
            ray.shutdown()
            _on_sigterm(self._terminate)


def _join(address: str, source: str, settings: Mapping[str, Any]) -> None:
    """Joins a running cluster.

    Args:
        address: Of its head.
        source: What names it, for messages.
        settings: For `ray.init`.

    Raises:
        UserError: When none answers, or this machine is none of its nodes.
    """
    import ray

    try:
        probe_cluster(address)  # within seconds, where Ray would try for minutes
    except OSError as error:
        raise UserError(f"{source} {address}: no cluster answers ({one_line(error)}); is it running?") from error
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{source} {address}: cannot be joined from here ({one_line(error)}); run this on one of its nodes, or "
            f"make this machine one: ray start --address={address}"
        ) from error


def _handler_of_sigterm() -> Any:
    """What SIGTERM does now."""
    return signal.getsignal(signal.SIGTERM)


def _on_sigterm(handler: Any) -> None:
    """Sets what SIGTERM does, where that can be set."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _end_in_order(signum: int, frame: FrameType | None) -> NoReturn:
    """Ends the process with everything closed."""
    sys.exit(EXIT_TERMINATED)


def facts_here() -> Facts:
    """What this machine has; vLLM is looked up, not imported."""
    return {
        "python": platform.python_version(),
        "vllm": _version("vllm"),
        "transformers": _version("transformers"),
        "learn2ask": _own_version(),
    }


def _version(module: str) -> str:
    """The version of an importable module, by whatever distribution brought it; `""` where there is none."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    names = metadata.packages_distributions().get(module, [])
    return metadata.version(names[0]) if names else "unknown"


def _own_version() -> str:
    """The start of a digest of this package's code: checkouts of one version differ."""
    digest = hashlib.sha256()
    folder = Path(__file__).resolve().parents[1]
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()[:10]


def lacking(facts: Facts, expected: Facts, paths: Sequence[str]) -> str:
    """Why a replica cannot run here, `""` when it can.

    Args:
        facts: Of this machine.
        expected: Of the others.
        paths: Folders of the model that must be seen here.
    """
    unseen = [path for path in paths if not Path(path).is_dir()]
    if unseen:
        return f"does not see {' and '.join(unseen)}"
    unlike = [name for name in expected if facts[name] != expected[name]]
    said = ", ".join(
        f"{name} {facts[name] or 'missing'} where others have {expected[name] or 'none'}" for name in unlike
    )
    return f"has {said}" if said else ""


def check_nodes(nodes: Sequence[Node], paths: Sequence[str], *, flag: str) -> Facts:
    """Asks every node with GPUs what it has, before anything is loaded there.

    Args:
        nodes: Of the joined cluster.
        paths: Folders of the model, as every node must see them.
        flag: That asks for replicas, for messages.

    Returns:
        What all of them have.

    Raises:
        UserError: When a node lacks vLLM or the model, cannot run this package, or differs from the others.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(_look_at_node)
    asked = {}
    for node in nodes:
        if node.gpus:
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            asked[node.name] = look.options(num_cpus=0, scheduling_strategy=there).remote(list(paths))
    found: dict[str, Facts] = {}
    unseen: dict[str, list[str]] = {}
    for name, answer in asked.items():
        try:
            found[name], unseen[name] = ray.get(answer, timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            said = f"{flag}: node {name} cannot run this package ({last_line(error)})"
            raise UserError(f"{said}; install the same version on every node") from error
    without = [name for name, facts in found.items() if not facts["vllm"]]
    if without:
        raise UserError(f'{flag}: no vLLM on node {", ".join(without)}; there: pip install -e ".[gpu]"')
    for path in paths:
        blind = [name for name, missing in unseen.items() if path in missing]
        if blind:
            raise UserError(
                f"{path}: not seen by node {', '.join(blind)}; put it on a disk that all nodes see at this path"
            )
    for what in next(iter(found.values()), {}):
        versions = {name: facts[what] for name, facts in found.items()}
        if len(set(versions.values())) > 1:
            listed = ", ".join(f"{version or 'none'} on {name}" for name, version in versions.items())
            raise UserError(f"{flag}: nodes differ in {what}: {listed}; install the same on all")
    return next(iter(found.values()), facts_here())


def _look_at_node(paths: list[str]) -> tuple[Facts, list[str]]:
    """Runs on a node: what it has, and which folders it does not see."""
    return facts_here(), [path for path in paths if not Path(path).is_dir()]


def one_line(error: object) -> str:
    """An error's words on one short line."""
    return " ".join(str(error).split())[:_REASON_LENGTH] or type(error).__name__


def last_line(error: object) -> str:
    """The last line of an error that carries a traceback, which says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:_REASON_LENGTH]
