"""Deals the GPUs of a cluster out to replicas of one engine, as the flags say; plain functions on counts."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.ray_cluster import gpu_table

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFlags:
    """What the flags say of a pool.

    Attributes:
        replicas: A number, or `auto` for as many as the cluster's GPUs give.
        flag: That says so.
        ray_address: Of the cluster, `None` for the one that runs.
    """

    replicas: int | str
    flag: str
    ray_address: str | None

    @property
    def wanted(self) -> int | None:
        """How many; `None` for as many as there can be."""
        return None if isinstance(self.replicas, str) else self.replicas


def replicas_count(text: str) -> int | str:
    """An argparse type for `auto` and whole numbers from 1."""
    if text == AUTO:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is neither auto nor a whole number from 1")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of a cluster.

    Attributes:
        id: Of Ray.
        name: For reading: its address, with the start of its id where several share one.
        gpus: All that it has.
        free: Those that nothing has taken.
    """

    id: str
    name: str
    gpus: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which node holds how many replicas.

    Attributes:
        tensor_parallel_size: GPUs of a replica; they lie in one node.
        nodes: With GPUs.
        replicas: Of each of them, in the same order.
    """

    tensor_parallel_size: int
    nodes: tuple[Node, ...]
    replicas: tuple[int, ...]

    @property
    def total(self) -> int:
        """Replicas in all."""
        return sum(self.replicas)

    def table(self) -> str:
        """The plan for reading, as the preflight shows who gets which GPUs."""
        size = f"{self.tensor_parallel_size} GPU{'s' * (self.tensor_parallel_size > 1)}"
        rows = [
            (
                node.name,
                replicas * self.tensor_parallel_size,
                f"of {node.gpus}: {replicas} replica{'s' * (replicas != 1)} x {size}",
            )
            for node, replicas in zip(self.nodes, self.replicas, strict=True)
        ]
        return gpu_table([*rows, ("present", sum(node.gpus for node in self.nodes), "")])


def plan_replicas(
    nodes: Sequence[Node],
    *,
    wanted: int | None,
    tensor_parallel_size: int | None,
    fitting: Callable[[int], int],
    flag: str,
) -> Plan:
    """Deals the free GPUs out.

    Args:
        nodes: Of the cluster.
        wanted: Replicas; `None` for as many as the GPUs give.
        tensor_parallel_size: GPUs of each. `None` for as many as the heads allow: of the smallest number that a node
            has free, so that no node is left out, or as many as leave room for the replicas that are wanted.
        fitting: The most GPUs, of a number at hand, that the model can be split over.
        flag: That asks for replicas, for messages.

    Raises:
        UserError: When not even one fits, or fewer than are wanted.
    """
    nodes = tuple(node for node in nodes if node.gpus)
    free = [node.free for node in nodes if node.free]
    if not nodes:
        raise UserError(f"{flag}: the cluster has no GPU; start Ray on a machine with some, or leave {flag} out")
    if not free:
        raise UserError(
            f"{flag}: none of the cluster's {sum(node.gpus for node in nodes)} GPUs is free{_by_node(nodes)}"
        )
    size = tensor_parallel_size or _size(free, wanted, fitting)
    places = [node.free // size for node in nodes]
    if not any(places):
        most = max(free)
        raise UserError(
            f"{flag}: a replica of {size} GPUs lies in one node, and the most that one has free is {most}; lower "
            "the tensor parallel size"
        )
    if wanted is not None and wanted > sum(places):
        raise UserError(
            f"{flag} {wanted}: {wanted} replicas x {size} GPUs are more than are free{_by_node(nodes)}; "
            f"{sum(places)} would fit"
        )
    return Plan(tensor_parallel_size=size, nodes=nodes, replicas=_spread(places, wanted))


def _size(free: list[int], wanted: int | None, fitting: Callable[[int], int]) -> int:
    """The GPUs of a replica where none are named."""
    if wanted is None:
        return fitting(min(free))
    sizes = sorted({fitting(gpus) for gpus in range(1, max(free) + 1)}, reverse=True)
    return next((size for size in sizes if sum(gpus // size for gpus in free) >= wanted), sizes[-1])


def _spread(places: list[int], wanted: int | None) -> tuple[int, ...]:
    """How many of each node's places are taken, evenly over the nodes."""
    if wanted is None:
        return tuple(places)
    taken = [0] * len(places)
    for _ in range(wanted):
        emptiest = max(range(len(places)), key=lambda node: places[node] - taken[node])
        taken[emptiest] += 1
    return tuple(taken)


def _by_node(nodes: Sequence[Node]) -> str:
    """The free GPUs of every node, in brackets."""
    return f" ({', '.join(f'{node.name}: {node.free} of {node.gpus}' for node in nodes)})"
