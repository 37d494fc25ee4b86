"""The vllm engine as a pool of replicas: what its flags mean on a cluster."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.engines.replicas.nodes import JoinedCluster, check_nodes, one_line
from tuner.learn_to_ask.engines.replicas.plan import Node, Plan, ReplicaFlags, plan_replicas
from tuner.learn_to_ask.engines.replicas.pool import ReplicaPool
from tuner.learn_to_ask.engines.tensor_parallel import read_heads
from tuner.learn_to_ask.engines.vllm import VLLMEngine, installed
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_source import ModelSource
from tuner.learn_to_ask.ray_cluster import cluster_address

_ADDRESS_FLAG = "--ray_address"


def check_replicas(source: ModelSource, options: Mapping[str, Any], flags: ReplicaFlags) -> None:
    """Checks the cluster of a pool that is only started later, after something long; GPUs may be taken until then.

    Args:
        source: The model.
        options: Of every engine, as `VLLMEngine` takes them.
        flags: Of the pool.

    Raises:
        UserError: When it could not be started.
    """
    if cluster_address(flags.ray_address, setting=_ADDRESS_FLAG).address is None:
        if not installed():
            raise UserError(f'{flags.flag}: no Ray cluster runs, and this machine has no vLLM: pip install -e ".[gpu]"')
        return
    cluster = JoinedCluster(flags.ray_address, setting=_ADDRESS_FLAG)
    try:
        nodes = [replace(node, free=node.gpus) for node in cluster.nodes()]
        if not source.shards:  # the model that tells its heads is yet to be made of them
            _plan(nodes, source, options, flags)
        check_nodes(nodes, _folders(source), flag=flags.flag)
    finally:
        cluster.close()


def start_replicas(source: ModelSource, options: Mapping[str, Any], *, seed: int, flags: ReplicaFlags) -> ReplicaPool:
    """Starts the pool and says where its replicas are.

    Args:
        source: The model.
        options: Of every engine, as `VLLMEngine` takes them.
        seed: Of the first replica's sampling. Each further one has the next, or equal conversations on two of them
            would get equal answers.
        flags: Of the pool.

    Raises:
        UserError: When it cannot be started.
    """
    cluster = JoinedCluster(flags.ray_address, setting=_ADDRESS_FLAG)
    try:
        nodes = cluster.nodes()
        plan = _plan(nodes, source, options, flags)
        folders = _folders(source)
        expected = check_nodes(nodes, folders, flag=flags.flag)
        print(f"{flags.flag} {flags.replicas} on {cluster.name}, GPUs by node:\n{plan.table()}", file=sys.stderr)
    except BaseException:
        cluster.close()
        raise
    everything = {**options, "tensor_parallel_size": plan.tensor_parallel_size, "adapter": _everywhere(source).adapter}
    make_engine = partial(_load, model=_everywhere(source).model, seed=seed, options=everything)
    return ReplicaPool(
        make_engine,
        cluster=cluster,
        plan=plan,
        wanted=flags.wanted,
        expected=expected,
        paths=folders,
        description=f"vllm:{source.name}",
    )


def _load(number: int, *, model: str, seed: int, options: Mapping[str, Any]) -> VLLMEngine:
    """Loads the engine of a replica; runs on its node."""
    return VLLMEngine(model, seed=seed + number - 1, **options)


def _plan(nodes: list[Node], source: ModelSource, options: Mapping[str, Any], flags: ReplicaFlags) -> Plan:
    """Deals out the free GPUs by what the model's heads allow."""

    def fitting(gpus: int) -> int:
        try:
            heads = read_heads(source.model, trust_remote_code=options["trust_remote_code"])
        except (OSError, ValueError) as error:
            raise UserError(f"model {source.model}: its configuration cannot be read: {one_line(error)}") from error
        return heads.fitting_gpus(gpus)

    return plan_replicas(
        nodes,
        wanted=flags.wanted,
        tensor_parallel_size=options["tensor_parallel_size"],
        fitting=fitting,
        flag=flags.flag,
    )


def _everywhere(source: ModelSource) -> ModelSource:
    """The model as a process with another working directory finds it."""
    adapter = source.adapter
    return replace(
        source,
        model=str(Path(source.model).absolute()) if Path(source.model).exists() else source.model,
        adapter=adapter and replace(adapter, folder=str(Path(adapter.folder).absolute())),
    )


def _folders(source: ModelSource) -> list[str]:
    """The folders that every node must see; one that shards are yet to be converted into is none so far."""
    everywhere = _everywhere(source)
    folders = [everywhere.model] if Path(everywhere.model).is_dir() else []
    return [*folders, *([everywhere.adapter.folder] if everywhere.adapter else [])]
