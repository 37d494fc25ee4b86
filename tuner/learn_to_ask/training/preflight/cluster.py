"""Checks of the cluster: Ray answers, its GPUs can be dealt out, trainer and grader fit on theirs."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.ray_cluster import RayCluster, cluster_address, gpu_table, probe_cluster
from tuner.learn_to_ask.training.config_file import RunConfig, flash_attention_needed, has_flash_attention
from tuner.learn_to_ask.training.preflight.findings import Finding, gigabytes, one_line
from tuner.learn_to_ask.training.preflight.models import ModelPlace
from tuner.learn_to_ask.training.settings import TrainingSettings

_TRAINER_CPUS = 3  # of Ray for each GPU of the trainer, in verl's resource pool
_GPU_SHARE = 0.9  # of a GPU's memory for an engine, Trinity's default


def check_ray(
    ray_address: str | None, probe: Callable[[str], RayCluster] = probe_cluster
) -> tuple[RayCluster | None, Finding]:
    """Finds the cluster that the run will use.

    Args:
        ray_address: Of config.yaml; `None` takes RAY_ADDRESS, then what runs on this machine, then a new one.
        probe: Asks a cluster for its resources.

    Returns:
        The running cluster, `None` when one will be started.

    Raises:
        UserError: When the address cannot be one.
    """
    place = cluster_address(ray_address)
    if place.address is None:
        reason = f" ({place.source}: local)" if place.source else ", none is running"
        return None, Finding("ok", "ray", f"a cluster of its own will be started{reason}")
    try:
        cluster = probe(place.address)
    except OSError as error:
        said = f"{place.source} {place.address}: no cluster answers ({one_line(error)}); "
        remedy = "`ray stop --force`" if place.source.startswith("`") else f"change {place.source}"
        return None, Finding("fatal", "ray", f"{said}start it with `ray start --head`, or {remedy}")
    said = f"{place.address}: {len(cluster.gpus)} nodes, {cluster.cpus} CPUs, {sum(cluster.gpus)} GPUs, "
    return cluster, Finding("ok", "ray", f"{said}{gigabytes(cluster.memory)} of memory")


def shared_folder(cluster: RayCluster | None, job_folder: Path) -> list[Finding]:
    """On several nodes, checkpoints and tasks must be visible to all."""
    if cluster is None or len(cluster.gpus) < 2:
        return []
    said = f"{job_folder} must be on a disk that all {len(cluster.gpus)} nodes see at this path; not checked from here"
    return [Finding("warning", "shared folder", said)]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who gets how many GPUs.

    Attributes:
        policy: Of the rollout engines.
        grader: Of the grader engines.
        trainer: The rest, below 1 when nothing is left.
        table: The same for reading.
        problem: Why it does not fit, `""` when it does.
    """

    policy: int
    grader: int
    trainer: int
    table: str
    problem: str = ""


def gpu_allocation(
    settings: TrainingSettings, gpus: int, gpus_per_node: int | None = None, *, sequence_parallel: int = 1
) -> Allocation:
    """Deals out the GPUs as Trinity does (`_set_gpu_allocation_info` of its config validator).

    Args:
        settings: Engines, their tensor parallel sizes, and the batch that the trainer's GPUs share.
        gpus: Of all nodes.
        gpus_per_node: `None` when all are in one node.
        sequence_parallel: `trainer.ulysses_sequence_parallel_size` of config.yaml.
    """
    node = gpus_per_node or gpus
    auxiliary = settings.grader == "auxiliary"
    policy = settings.inference_engine_num * settings.tensor_parallel_size
    grader = settings.auxiliary_engine_num * settings.auxiliary_tensor_parallel_size if auxiliary else 0
    colocated = gpus == 1 and policy == 1 and not grader
    trainer = 1 if colocated else gpus - policy - grader
    rollouts = settings.batch_size * settings.group_size
    problem = ""
    if trainer < 1:
        problem = f"policy {policy} + grader {grader} leave none of {gpus} GPUs for the trainer"
    elif trainer > node and trainer % node:
        problem = f"the trainer's {trainer} GPUs are more than a node's {node} and no whole nodes"
    elif (size := _straddling_engine(settings, node, auxiliary=auxiliary)) is not None:
        problem = f"an engine of {size} GPUs would lie on two nodes of {node} GPUs"
    elif trainer % sequence_parallel:
        problem = (
            f"trainer.ulysses_sequence_parallel_size {sequence_parallel} does not divide the trainer's {trainer} GPUs"
        )
    elif rollouts % (trainer // sequence_parallel):
        problem = f"the {rollouts} rollouts of a step (--batch_size x --group_size) are no multiple of the trainer's "
        problem += f"{trainer // sequence_parallel} shares"
    return Allocation(policy, grader, trainer, _table(settings, policy, grader, trainer, gpus), problem)


def _straddling_engine(settings: TrainingSettings, node: int, *, auxiliary: bool) -> int | None:
    """The size of an engine that does not lie within a node, when nodes are filled one after the other."""
    sizes = [settings.tensor_parallel_size] * settings.inference_engine_num
    if auxiliary:
        sizes += [settings.auxiliary_tensor_parallel_size] * settings.auxiliary_engine_num
    used = 0
    for size in sizes:
        if used % node + size > node:
            return size
        used += size
    return None


def _table(settings: TrainingSettings, policy: int, grader: int, trainer: int, gpus: int) -> str:
    """The allocation as a small table."""
    engines = f"{settings.inference_engine_num} engines x {settings.tensor_parallel_size} GPUs"
    graders = f"{settings.auxiliary_engine_num} engines x {settings.auxiliary_tensor_parallel_size} GPUs"
    rows = [
        ("policy", policy, engines),
        ("grader", grader, graders if settings.grader == "auxiliary" else f"none, --grader {settings.grader}"),
        ("trainer", max(trainer, 0), "the rest" if gpus > 1 else "shares the policy's GPU"),
        ("present", gpus, ""),
    ]
    return gpu_table(rows)


def suggest_allocation(gpus: int, grader: str = "auxiliary") -> dict[str, int | str]:
    """Settings that fit a number of GPUs, best on nodes of 8; empty below 2.

    With 2 or 3 GPUs an auxiliary grader has to move to an endpoint elsewhere; with 4 to 7 it has one GPU, which must
    hold it (32B in bfloat16: 65 GB); from 8 on half of the GPUs roll out, a quarter grade and a quarter train. A
    grader without GPUs stays as it is, and its share rolls out.

    Args:
        gpus: Of all nodes.
        grader: As in the settings.
    """
    if gpus < 2:
        return {}
    trainers = max(gpus // 4, 1)
    if grader != "auxiliary":
        return {"inference_engine_num": gpus - trainers, "tensor_parallel_size": 1}
    if gpus < 4:
        return {"grader": "openai", "inference_engine_num": 1, "tensor_parallel_size": 1}
    graders = {"auxiliary_engine_num": max(gpus // 8, 1), "auxiliary_tensor_parallel_size": 2 if gpus >= 8 else 1}
    engines = gpus // 2 if gpus >= 8 else gpus - 3
    return {"grader": "auxiliary", "inference_engine_num": engines, "tensor_parallel_size": 1, **graders}


def check_cpus(settings: TrainingSettings, config: RunConfig, cluster: RayCluster | None) -> list[Finding]:
    """Counts the CPUs that Ray must have: with fewer, Trinity would wait for them without end.

    Args:
        settings: Engines and their sizes.
        config: May spell out the nodes.
        cluster: `None` when the run starts one of its own, with what Ray finds on this machine.
    """
    if cluster is not None:
        present, gpus = cluster.cpus, counted_gpus(cluster, config)[0]
    else:
        import torch
        from ray._private.utils import get_num_cpus  # knows the limits of containers; there is no public one

        present, gpus = int(get_num_cpus()), torch.cuda.device_count()
    trainer = gpu_allocation(settings, gpus).trainer
    needed = _TRAINER_CPUS * max(trainer, 0)
    if not gpus or present >= needed:
        return []
    said = (
        f"Ray has {present}, the trainer's {trainer} GPUs take {_TRAINER_CPUS} each: start Ray with `ray start --head "
    )
    return [Finding("fatal", "cpus", f"{said}--num-cpus {needed}` or more")]


def check_gpus(settings: TrainingSettings, config: RunConfig, cluster: RayCluster | None) -> Finding:
    """Deals out the GPUs of the running cluster, else those of this machine."""
    if cluster is not None:
        gpus, node = counted_gpus(cluster, config)
        if gpus > sum(cluster.gpus):
            return Finding("fatal", "gpus", _too_many_counted(gpus, sum(cluster.gpus), config))
    else:
        import torch

        gpus = node = torch.cuda.device_count()
    parallel = (config.resolved.get("trainer") or {}).get("ulysses_sequence_parallel_size")
    return gpu_finding(settings, gpus, node, sequence_parallel=parallel if isinstance(parallel, int) else 1)


def check_attention(config: RunConfig, *, installed: bool | None = None) -> Finding:
    """Says which attention the trainer computes with; flash_attn comes with no other package.

    Args:
        config: May ask for flash attention by name.
        installed: Whether flash_attn is; looked up by default.
    """
    if has_flash_attention() if installed is None else installed:
        return Finding("ok", "attention", "flash_attn is installed")
    if needed := flash_attention_needed(config):
        said = (
            f"{', '.join(needed)} in config.yaml: flash_attn is not installed; remove the key or build it, with nvcc: "
        )
        return Finding("fatal", "attention", f"{said}uv pip install --no-build-isolation flash-attn")
    said = "flash_attn is not installed: the trainer takes PyTorch's attention and computes padding too, which is "
    return Finding("warning", "attention", f"{said}slower; uv pip install --no-build-isolation flash-attn")


def check_grader_fits(settings: TrainingSettings, parameters: int | None, gpu_bytes: int, share: float) -> Finding:
    """Compares the grader's weights in bfloat16 with the memory of its GPUs.

    Args:
        settings: Says over how many GPUs the grader is split.
        parameters: Of the grader, `None` when that is not known.
        gpu_bytes: Of one GPU.
        share: What vLLM takes of it, `gpu_memory_utilization`.
    """
    split = settings.auxiliary_tensor_parallel_size
    if not parameters:
        return Finding("ok", "grader memory", "not known before its weights are here")
    needed, present = 2 * parameters / split, share * gpu_bytes
    said = f"{settings.auxiliary_model_path} has {gigabytes(needed)} of weights for each of its {split} GPUs, "
    if needed < present:
        return Finding("ok", "grader memory", f"{said}{gigabytes(present)} are there for weights and cache")
    said += (
        f"where vLLM has {gigabytes(present)}: raise --auxiliary_tensor_parallel_size, name a smaller grader, or grade "
    )
    return Finding("fatal", "grader memory", f"{said}elsewhere with --grader openai")


def grader_memory(settings: TrainingSettings, config: RunConfig, grader: ModelPlace) -> list[Finding]:
    """The finding on the grader's size, where this machine has the GPUs."""
    import torch

    if not torch.cuda.is_available():
        return []
    share = float(config.engines[1].get("gpu_memory_utilization") or _GPU_SHARE)
    total = torch.cuda.get_device_properties(0).total_memory
    return [check_grader_fits(settings, grader.parameters, total, share)]


def _too_many_counted(counted: int, present: int, config: RunConfig) -> str:
    """Why Trinity would wait for GPUs that do not exist, and what to change."""
    given = config.resolved.get("cluster") or {}
    if given.get("node_num") and given.get("gpu_per_node"):
        said = (
            f"cluster.node_num x cluster.gpu_per_node are {counted} GPUs, Ray has {present}: start the missing nodes "
        )
        return f"{said}with `ray start --address` or change the two keys"
    said = f"Trinity counts {counted} GPUs where Ray has {present}, because nodes differ: set "
    return f"{said}cluster.node_num and cluster.gpu_per_node in config.yaml"


def counted_gpus(cluster: RayCluster, config: RunConfig) -> tuple[int, int]:
    """All GPUs and those of a node, counted as Trinity does: nodes times the GPUs of the first that has any."""
    given: Any = config.resolved.get("cluster") or {}
    node = given.get("gpu_per_node") or next((count for count in cluster.gpus if count), 0)
    nodes = given.get("node_num") or len(cluster.gpus)
    if not isinstance(node, int) or not isinstance(nodes, int):
        return sum(cluster.gpus), next((count for count in cluster.gpus if count), 0)
    return nodes * node, node


def gpu_finding(settings: TrainingSettings, gpus: int, gpus_per_node: int, *, sequence_parallel: int = 1) -> Finding:
    """Judges an allocation."""
    if not gpus:
        said = "no GPU found: run on a machine with GPUs, or set model.tinker.enable to true in config.yaml"
        return Finding("fatal", "gpus", said)
    allocation = gpu_allocation(settings, gpus, gpus_per_node, sequence_parallel=max(sequence_parallel, 1))
    if not allocation.problem:
        return Finding("ok", "gpus", f"{gpus} are dealt out:", allocation.table)
    return Finding(
        "fatal", "gpus", f"{allocation.problem}: {_gpu_advice(settings, gpus, gpus_per_node)}", allocation.table
    )


def _gpu_advice(settings: TrainingSettings, gpus: int, gpus_per_node: int) -> str:
    """The flags that make it fit."""
    changes: dict[str, Any] = suggest_allocation(gpus, settings.grader)
    if changes and not gpu_allocation(dataclasses.replace(settings, **changes), gpus, gpus_per_node).problem:
        return "try " + " ".join(f"--{name} {value}" for name, value in changes.items())
    if gpus == 1:
        grader = "--grader openai " if settings.grader == "auxiliary" else ""
        return f"with one GPU use {grader}--inference_engine_num 1 --tensor_parallel_size 1"
    return "change --inference_engine_num, --tensor_parallel_size or --auxiliary_engine_num"
