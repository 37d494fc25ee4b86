"""Checks everything that a training run needs before it costs anything: all findings at once, one line each."""

import dataclasses
import difflib
import importlib
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_UNUSABLE
from tuner.learn_to_ask.config_file import flash_attention_needed, has_flash_attention
from tuner.learn_to_ask.dataset import train_file
from tuner.learn_to_ask.engines.chat import encode_chat
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.grading import parse_grade
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.model_files import missing_model_files, missing_names, parameter_count
from tuner.learn_to_ask.prompt import grading_messages, rollout_messages
from tuner.learn_to_ask.ray_cluster import RayCluster, cluster_address, probe_cluster
from tuner.learn_to_ask.records import Task
from tuner.learn_to_ask.resume import check_same_run, identity, last_checkpoint

if TYPE_CHECKING:
    from tuner.learn_to_ask.config_file import RunConfig
    from tuner.learn_to_ask.main import TrainingSettings

Level = Literal["ok", "warning", "fatal"]
AskGrader = Callable[[list[dict[str, str]]], str]
ResultT = TypeVar("ResultT")

_EXAMPLES = 3  # how many bad lines or tasks a verdict names
_HUB_SECONDS = 10.0
_TINKER_SECONDS = 20.0
_GRADER_SECONDS = 120.0
_TRAINING_BYTES = 14  # of a full checkpoint for each parameter: weights, master weights, two Adam moments
_EXPORT_BYTES = 2  # of the Hugging Face export for each parameter
_TRAINER_CPUS = 3  # of Ray for each GPU of the trainer, in verl's resource pool
_GPU_SHARE = 0.9  # of a GPU's memory for an engine, Trinity's default
_LORA_FACTOR = 10  # LoRA's learning rate against that of full fine-tuning
_SAMPLE_QUESTION = "How high is your fever: A) below 38, B) 38 to 39, or C) above 39?"
_SAMPLE_TASK = Task(
    cid="preflight_0",
    session_id="preflight",
    messages=[{"role": "user", "content": "I have had a cough and a fever since yesterday."}],
    info_truth="symptom severity: fever of 39 degrees",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        level: `fatal` keeps the run from starting.
        check: What was checked.
        verdict: One line, with what to change where something is wrong.
        details: Further lines, such as a table.
    """

    level: Level
    check: str
    verdict: str
    details: str = ""


def preflight(
    settings: "TrainingSettings", config: "RunConfig", *, ask_grader: AskGrader | None = None
) -> list[Finding]:
    """Runs every check, whatever the others find.

    Args:
        settings: The flags of main.py.
        config: What config.yaml says.
        ask_grader: Sends one grading prompt to the grader and returns its reply; for graders that can be
            reached before the start.
    """
    # A cluster that does not answer is waited for while the others are checked, which takes as long.
    executor = ThreadPoolExecutor(max_workers=1)
    asked = executor.submit(check_ray, config.ray_address)
    executor.shutdown(wait=False)
    scans: list[DatasetScan] = []
    clusters: list[RayCluster] = []
    policies: list[ModelPlace] = []

    def dataset() -> list[Finding]:
        scans.append(scan_dataset(train_file(settings.data)))
        return dataset_findings(scans[0], settings)

    def ray() -> list[Finding]:
        cluster, finding = asked.result()
        clusters.extend([cluster] if cluster else [])
        return [finding, *_shared_folder(cluster, config.job_folder)]

    def policy() -> list[Finding]:
        policies.append(locate_model(settings.model_path, weights=not config.tinker))
        return [model_finding("policy", settings.model_path, "--model_path", policies[0])]

    def grader_model() -> list[Finding]:
        path = settings.auxiliary_model_path
        place = locate_model(path)
        found = model_finding("grader model", path, "--auxiliary_model_path", place)
        return [found, *_grader_memory(settings, config, place)]

    def grader() -> list[Finding]:
        missing = [flag for flag in ("grader_base_url", "grader_model") if not getattr(settings, flag)]
        if settings.grader == "openai" and missing:
            return [Finding("fatal", "grader", f"--{flag}: the openai grader needs it") for flag in missing]
        sample = scans[0].sample if scans else None
        return [check_grader(settings.grader, sample or _SAMPLE_TASK, ask_grader)]

    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("dataset", dataset),
        ("checkpoints", lambda: [check_checkpoints(settings, config)]),
        ("learning rate", lambda: [check_learning_rate(settings, tinker=config.tinker)]),
        ("policy", policy),
        ("prompt lengths", lambda: [check_prompt_lengths(settings)]),
        ("ray", ray),
        ("monitor", lambda: [check_monitor(config)]),
    ]
    if config.tinker:
        checks.append(("tinker", lambda: [check_tinker(settings, config.base_url)]))
    else:
        if settings.grader == "auxiliary":
            checks.append(("grader model", grader_model))
        checks.append(("gpus", lambda: [check_gpus(settings, config, clusters[0] if clusters else None)]))
        checks.append(("cpus", lambda: check_cpus(settings, config, clusters[0] if clusters else None)))
        checks.append(("attention", lambda: [check_attention(config)]))
        checks.append(("disk", lambda: [check_disk(config.job_folder, policies[0].parameters if policies else None)]))
    checks.append(("grader", grader))
    return [finding for name, check in checks for finding in _guarded(name, check)]


def exit_code(findings: Iterable[Finding]) -> int:
    """2 when a finding is fatal, else 0."""
    return EXIT_UNUSABLE if any(finding.level == "fatal" for finding in findings) else EXIT_DONE


def print_findings(findings: Sequence[Finding]) -> None:
    """Prints a line for each finding, its details below it, and the count of what is wrong."""
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        print(f"{finding.level:<7}  {finding.check:<{width}}  {finding.verdict}")
        for line in finding.details.splitlines():
            print(f"{'':<7}  {'':<{width}}  {line}")
    levels = [finding.level for finding in findings]
    print(f"preflight: {len(findings)} findings, {levels.count('fatal')} fatal, {levels.count('warning')} warnings")


def _guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; what it raises becomes one, so that the others still run."""
    try:
        return check()
    except UserError as error:
        return [Finding("fatal", name, str(error))]
    except Exception as error:
        return [Finding("warning", name, f"could not be checked: {_one_line(error)}")]


def _one_line(error: object) -> str:
    """An error on one short line, the Tinker key blotted out should it be quoted."""
    text = " ".join(str(error).split()) or type(error).__name__
    key = os.environ.get("TINKER_API_KEY")
    return (text.replace(key, "***") if key else text)[:300]


def within(seconds: float, function: Callable[[], ResultT]) -> ResultT:
    """Calls a function that may hang.

    Raises:
        TimeoutError: When it has not returned in time; it is left behind in a daemon thread.
    """
    results: list[ResultT] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(function())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


# --- dataset ---------------------------------------------------------------------------------------------------------


@dataclass
class DatasetScan:
    """What the training set holds.

    Attributes:
        tasks: Lines that can be read.
        bad_lines: Line and reason of every other line.
        stops: Tasks whose doctor stopped.
        undecided: Tasks without `decision_truth`.
        without_info: Ids of `continue` tasks without `info_truth`.
        from_assistant: Ids of tasks whose last message is the doctor's.
        sample: A task that a grader can be tried with.
    """

    tasks: int = 0
    bad_lines: list[str] = field(default_factory=list)
    stops: int = 0
    undecided: int = 0
    without_info: list[str] = field(default_factory=list)
    from_assistant: list[str] = field(default_factory=list)
    sample: Task | None = None

    @property
    def continues(self) -> int:
        """Tasks whose doctor went on."""
        return self.tasks - self.stops


def scan_dataset(file: Path) -> DatasetScan:
    """Reads the whole training set once."""
    scan = DatasetScan()
    skipped = io.StringIO()
    with redirect_stderr(skipped):  # read_jsonl names the bad lines there and nowhere else
        for task in read_jsonl(file, Task, unique_key="cid", report=ReadReport()):
            scan.tasks += 1
            scan.stops += task.decision_truth == "stop"
            scan.undecided += "decision_truth" not in task.model_fields_set
            if task.messages[-1]["role"] == "assistant":
                scan.from_assistant.append(task.cid)
            if task.decision_truth == "continue":
                if not task.info_truth.strip():
                    scan.without_info.append(task.cid)
                scan.sample = scan.sample or task
    scan.bad_lines = [
        line.removeprefix(f"{file}:").replace(" skipped:", "", 1) for line in skipped.getvalue().splitlines()
    ]
    return scan


def dataset_findings(scan: DatasetScan, settings: "TrainingSettings") -> list[Finding]:
    """Judges what a scan saw."""
    build = "build it again with 2_build_dataset.py"
    findings = [Finding("ok", "dataset", f"{scan.tasks} tasks: {scan.continues} continue, {scan.stops} stop")]
    if not scan.tasks:
        findings = [Finding("fatal", "dataset", f"--data: the train split holds no task; {build}")]
    if scan.bad_lines:
        first = " | ".join(f"line {line}" for line in scan.bad_lines[:_EXAMPLES])
        findings.append(Finding("fatal", "dataset lines", f"{len(scan.bad_lines)} cannot be used: {first}; {build}"))
    if scan.without_info:
        said = f"{_named(scan.without_info)} say continue without info_truth: nothing could be rewarded; {build}"
        findings.append(Finding("fatal", "info_truth", said))
    if scan.from_assistant:
        said = f"{_named(scan.from_assistant)} end with a message of the assistant, so there is nothing to answer: "
        findings.append(Finding("fatal", "last message", said + "end them with the patient's message"))
    if scan.undecided:
        said = f"{scan.undecided} tasks have no decision_truth and count as continue; add it where the doctor stopped"
        findings.append(Finding("warning", "decision_truth", said))
    if scan.tasks:
        findings += [*_decision_findings(scan, settings), *_batch_findings(scan.tasks, settings)]
    return findings


def _named(cids: list[str]) -> str:
    """How many tasks, and the first of them."""
    return f"{len(cids)} tasks ({_one_line(_list(cids))})"


def _decision_findings(scan: DatasetScan, settings: "TrainingSettings") -> list[Finding]:
    """Without both decisions a policy learns to always do the same."""
    missing = [name for name, count in (("continue", scan.continues), ("stop", scan.stops)) if not count]
    if not missing:
        return []
    if settings.train_mode == "Ra":
        return [Finding("warning", "decisions", f"no task says {missing[0]}; --train_mode Ra learns questions only")]
    said = f"no task says {missing[0]}: --train_mode {settings.train_mode} would learn never to; add such tasks"
    return [Finding("fatal", "decisions", f"{said} or train questions only with --train_mode Ra")]


def _batch_findings(tasks: int, settings: "TrainingSettings") -> list[Finding]:
    """A run without a full batch has no step."""
    if settings.total_steps:
        return [Finding("ok", "steps", f"{settings.total_steps}, by --total_steps")]
    steps = tasks * settings.total_epochs // settings.batch_size
    if steps:
        said = f"{tasks} tasks x {settings.total_epochs} epochs / batches of {settings.batch_size} = {steps} steps"
        return [Finding("ok", "steps", said)]
    said = f"{tasks} tasks x {settings.total_epochs} epochs do not fill one batch of {settings.batch_size}: "
    return [Finding("fatal", "steps", said + "lower --batch_size or raise --total_epochs")]


def check_learning_rate(settings: "TrainingSettings", *, tinker: bool) -> Finding:
    """Says which learning rate the run takes, and whether it is one for what is trained.

    Args:
        settings: May leave the rate open.
        tinker: LoRA weights are trained instead of the whole policy.
    """
    rate = settings.resolved_learning_rate(tinker=tinker)
    full = dataclasses.replace(settings, learning_rate=None).resolved_learning_rate(tinker=False)
    if settings.learning_rate is None:
        return Finding(
            "ok", "learning rate", f"{rate:g}, the default of {'LoRA on Tinker' if tinker else 'full fine-tuning'}"
        )
    if tinker and rate < _LORA_FACTOR * full:
        said = f"--learning_rate {rate:g} is a rate for full fine-tuning; LoRA wants about ten times that: "
        return Finding("warning", "learning rate", f"{said}{rate * _LORA_FACTOR:g} or more, or leave the flag away")
    return Finding("ok", "learning rate", f"{rate:g}, by --learning_rate")


def check_prompt_lengths(settings: "TrainingSettings") -> Finding:
    """Counts the prompts that leave no room for a response, with the policy's own tokenizer."""
    room = settings.max_model_len - settings.max_tokens
    if room < 1:
        said = f"--max_tokens {settings.max_tokens} leaves no room for a prompt in --max_model_len "
        return Finding("fatal", "prompt lengths", f"{said}{settings.max_model_len}: raise one or lower the other")
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(settings.model_path, local_files_only=True)
    except (OSError, ValueError) as error:
        said = f"not measured, the tokenizer of {settings.model_path} is not on this machine: {_one_line(error)}"
        return Finding("warning", "prompt lengths", said)
    if not getattr(tokenizer, "chat_template", None):
        said = f"the tokenizer of {settings.model_path} has no chat template: name an instruct model with --model_path"
        return Finding("fatal", "prompt lengths", said)
    tasks = read_jsonl(train_file(settings.data), Task, unique_key="cid", report=ReadReport(), quiet=True)
    lengths = [
        len(encode_chat(tokenizer, rollout_messages(task.messages, settings.train_mode), max_prompt_tokens=None)[0])
        for task in tasks
    ]
    return prompt_length_finding(lengths, room)


def prompt_length_finding(lengths: Sequence[int], room: int) -> Finding:
    """Judges the lengths of all prompts.

    Args:
        lengths: In tokens.
        room: The longest prompt that leaves room for a whole response.
    """
    if not lengths:
        return Finding("warning", "prompt lengths", "no task to measure")
    too_long = sum(length > room for length in lengths)
    measured = f"the longest of {len(lengths)} has {max(lengths)} tokens, {room} fit"
    if not too_long:
        return Finding("ok", "prompt lengths", measured)
    said = (
        f"{too_long} would be truncated ({measured}): the engine refuses or masks them, so their rollouts fail, and "
        "after its retries Trinity leaves the group out; raise --max_model_len or drop these tasks"
    )
    return Finding("fatal" if too_long == len(lengths) else "warning", "prompt lengths", said)


def check_checkpoints(settings: "TrainingSettings", config: "RunConfig") -> Finding:
    """Says whether the run is new or goes on, and refuses to go on with other settings."""
    step = last_checkpoint(config.job_folder)
    if not step:
        return Finding("ok", "checkpoints", f"none in {config.job_folder}: a new run")
    check_same_run(config.job_folder, identity(settings, config, train_file(settings.data)))
    return Finding("ok", "checkpoints", f"the run goes on from step {step} in {config.job_folder}")


# --- models and disk -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where a model is.

    Attributes:
        where: In words.
        problem: What is wrong with it, with what to do; `""` when nothing is.
        parameters: How many it has, `None` when that is not known.
    """

    where: str
    problem: str = ""
    parameters: int | None = None


def model_finding(check: str, model_path: str, flag: str, place: ModelPlace) -> Finding:
    """Judges where a model was found."""
    if place.problem:
        return Finding("fatal", check, f"{flag} {model_path}: {place.problem}")
    size = f", {place.parameters / 1e6:,.1f} million parameters" if place.parameters else ""
    return Finding("ok", check, f"{model_path}: {place.where}{size}")


def locate_model(model_path: str, *, weights: bool = True) -> ModelPlace:
    """Looks for a model in a folder, in the hub's cache, then on the hub.

    Args:
        model_path: A local folder or a hub id.
        weights: Whether the weights are needed; on Tinker only the tokenizer is.
    """
    from tuner.learn_to_ask.engines.transformers import require_model

    try:
        require_model(model_path)
    except UserError:
        return ModelPlace("", "no such model folder (a config.json is looked for); name a folder or a hub id")
    folder = Path(model_path)
    if folder.is_dir():
        missing = missing_model_files(folder, weights=weights)
        problem = f"incomplete, it lacks {_list(missing)}; copy the whole model" if missing else ""
        return ModelPlace("local folder", problem, parameter_count(folder) if weights else None)
    cached = _cached_snapshot(model_path)
    if cached and not missing_model_files(cached, weights=weights):
        return ModelPlace("in the hub's cache", "", parameter_count(cached) if weights else None)
    return _on_the_hub(model_path, weights=weights)


def _list(names: list[str]) -> str:
    """The first names and how many more."""
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more


def _cached_snapshot(model_path: str) -> Path | None:
    """The folder of a hub model in the cache, which may be incomplete."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model_path, local_files_only=True))
    except (OSError, ValueError):
        return None


def _on_the_hub(model_path: str, *, weights: bool) -> ModelPlace:
    """Asks the hub for a model that is not cached."""
    import httpx
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return ModelPlace("", "not whole in the hub's cache and HF_HUB_OFFLINE is set: download it first or unset that")
    try:
        info = within(2 * _HUB_SECONDS, lambda: HfApi().model_info(model_path, timeout=_HUB_SECONDS))
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = f"{type(error).__name__}: {_one_line(error)}"
        return ModelPlace("", f"not cached and not to be had from {constants.ENDPOINT}: {reason}")
    missing = missing_names({file.rfilename for file in info.siblings or []}, weights=weights)
    problem = f"no model that can be trained: the hub's copy lacks {_list(missing)}" if missing else ""
    return ModelPlace(
        "on the hub, downloaded at the start", problem, info.safetensors.total if info.safetensors else None
    )


def check_disk(job_folder: Path, parameters: int | None) -> Finding:
    """Compares the free disk with the size of a checkpoint.

    Args:
        job_folder: Where checkpoints go; need not exist yet.
        parameters: Of the policy, `None` when that is not known.
    """
    existing = next(folder for folder in (job_folder, *job_folder.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if parameters is None:
        return Finding("ok", "disk", f"{_gb(free)} free in {existing}; the size of a checkpoint is not known yet")
    needed = parameters * (_TRAINING_BYTES + _EXPORT_BYTES)
    said = f"{_gb(free)} free in {existing}, a checkpoint with its export takes about {_gb(needed)}"
    if free >= needed:
        return Finding("ok", "disk", f"{said}: room for {free // needed}; trainer.max_checkpoints_to_keep limits them")
    return Finding("fatal", "disk", f"{said}: free some or set TRINITY_CHECKPOINT_ROOT_DIR to a larger disk")


def _gb(size: float) -> str:
    """Bytes for reading."""
    return f"{size / 1e9:.1f} GB"


# --- Ray and GPUs ----------------------------------------------------------------------------------------------------


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
        said = f"{place.source} {place.address}: no cluster answers ({_one_line(error)}); "
        remedy = "`ray stop --force`" if place.source.startswith("`") else f"change {place.source}"
        return None, Finding("fatal", "ray", f"{said}start it with `ray start --head`, or {remedy}")
    said = f"{place.address}: {len(cluster.gpus)} nodes, {cluster.cpus} CPUs, {sum(cluster.gpus)} GPUs, "
    return cluster, Finding("ok", "ray", f"{said}{_gb(cluster.memory)} of memory")


def _shared_folder(cluster: RayCluster | None, job_folder: Path) -> list[Finding]:
    """On several nodes, checkpoints and tasks must be visible to all."""
    if cluster is None or len(cluster.gpus) < 2:
        return []
    said = f"{job_folder} must be on a disk that all {len(cluster.gpus)} nodes see at this path; not checked from here"
    return [Finding("warning", "shared folder", said)]


# What Trinity's monitors import, and where each sends its figures (trinity/utils/monitor.py).
_MONITORS = {
    "tensorboard": ("torch.utils.tensorboard", "files in the run's folder, works offline"),
    "wandb": ("wandb", "Weights & Biases; the key from WANDB_API_KEY or `wandb login`"),
    "mlflow": ("mlflow", "an MLflow server, monitor.monitor_args.uri or http://localhost:5000"),
    "swanlab": ("swanlab", "SwanLab; the key from SWANLAB_API_KEY"),
}


def check_monitor(config: "RunConfig") -> Finding:
    """Imports what the monitor of config.yaml needs: Trinity would only fail once its actors are up."""
    name = config.monitor
    module, place = _MONITORS[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        package = "tensorboard" if name == "tensorboard" else module
        said = f"monitor.monitor_type {name} cannot be imported ({_one_line(error)}): pip install {package}, "
        return Finding(
            "fatal", "monitor", f"{said}or choose {', '.join(other for other in _MONITORS if other != name)}"
        )
    if name == "swanlab" and not os.environ.get("SWANLAB_API_KEY"):
        return Finding("fatal", "monitor", "set SWANLAB_API_KEY in the environment before Ray starts")
    return Finding("ok", "monitor", f"{name}: {place}")


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
    settings: "TrainingSettings", gpus: int, gpus_per_node: int | None = None, *, sequence_parallel: int = 1
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


def _straddling_engine(settings: "TrainingSettings", node: int, *, auxiliary: bool) -> int | None:
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


def _table(settings: "TrainingSettings", policy: int, grader: int, trainer: int, gpus: int) -> str:
    """The allocation as a small table."""
    engines = f"{settings.inference_engine_num} engines x {settings.tensor_parallel_size} GPUs"
    graders = f"{settings.auxiliary_engine_num} engines x {settings.auxiliary_tensor_parallel_size} GPUs"
    rows = [
        ("policy", policy, engines),
        ("grader", grader, graders if settings.grader == "auxiliary" else f"none, --grader {settings.grader}"),
        ("trainer", max(trainer, 0), "the rest" if gpus > 1 else "shares the policy's GPU"),
        ("present", gpus, ""),
    ]
    return "\n".join(f"{name:<8}{count:>4}  {note}".rstrip() for name, count, note in rows)


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


def check_cpus(settings: "TrainingSettings", config: "RunConfig", cluster: RayCluster | None) -> list[Finding]:
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


def check_gpus(settings: "TrainingSettings", config: "RunConfig", cluster: RayCluster | None) -> Finding:
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


def check_attention(config: "RunConfig", *, installed: bool | None = None) -> Finding:
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


def check_grader_fits(settings: "TrainingSettings", parameters: int | None, gpu_bytes: int, share: float) -> Finding:
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
    said = f"{settings.auxiliary_model_path} has {_gb(needed)} of weights for each of its {split} GPUs, "
    if needed < present:
        return Finding("ok", "grader memory", f"{said}{_gb(present)} are there for weights and cache")
    said += f"where vLLM has {_gb(present)}: raise --auxiliary_tensor_parallel_size, name a smaller grader, or grade "
    return Finding("fatal", "grader memory", f"{said}elsewhere with --grader openai")


def _grader_memory(settings: "TrainingSettings", config: "RunConfig", grader: ModelPlace) -> list[Finding]:
    """The finding on the grader's size, where this machine has the GPUs."""
    import torch

    if not torch.cuda.is_available():
        return []
    share = float(config.engines[1].get("gpu_memory_utilization") or _GPU_SHARE)
    total = torch.cuda.get_device_properties(0).total_memory
    return [check_grader_fits(settings, grader.parameters, total, share)]


def _too_many_counted(counted: int, present: int, config: "RunConfig") -> str:
    """Why Trinity would wait for GPUs that do not exist, and what to change."""
    given = config.resolved.get("cluster") or {}
    if given.get("node_num") and given.get("gpu_per_node"):
        said = (
            f"cluster.node_num x cluster.gpu_per_node are {counted} GPUs, Ray has {present}: start the missing nodes "
        )
        return f"{said}with `ray start --address` or change the two keys"
    said = f"Trinity counts {counted} GPUs where Ray has {present}, because nodes differ: set "
    return f"{said}cluster.node_num and cluster.gpu_per_node in config.yaml"


def counted_gpus(cluster: RayCluster, config: "RunConfig") -> tuple[int, int]:
    """All GPUs and those of a node, counted as Trinity does: nodes times the GPUs of the first that has any."""
    given: Any = config.resolved.get("cluster") or {}
    node = given.get("gpu_per_node") or next((count for count in cluster.gpus if count), 0)
    nodes = given.get("node_num") or len(cluster.gpus)
    if not isinstance(node, int) or not isinstance(nodes, int):
        return sum(cluster.gpus), next((count for count in cluster.gpus if count), 0)
    return nodes * node, node


def gpu_finding(settings: "TrainingSettings", gpus: int, gpus_per_node: int, *, sequence_parallel: int = 1) -> Finding:
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


def _gpu_advice(settings: "TrainingSettings", gpus: int, gpus_per_node: int) -> str:
    """The flags that make it fit."""
    changes: dict[str, Any] = suggest_allocation(gpus, settings.grader)
    if changes and not gpu_allocation(dataclasses.replace(settings, **changes), gpus, gpus_per_node).problem:
        return "try " + " ".join(f"--{name} {value}" for name, value in changes.items())
    if gpus == 1:
        grader = "--grader openai " if settings.grader == "auxiliary" else ""
        return f"with one GPU use {grader}--inference_engine_num 1 --tensor_parallel_size 1"
    return "change --inference_engine_num, --tensor_parallel_size or --auxiliary_engine_num"


# --- Tinker ----------------------------------------------------------------------------------------------------------


def offered_models(base_url: str | None) -> list[str]:
    """Asks a Tinker service which models it offers."""
    import tinker

    service: Any = tinker.ServiceClient(base_url=base_url) if base_url else tinker.ServiceClient()
    try:
        return [model.model_name for model in service.get_server_capabilities().supported_models if model.model_name]
    finally:
        service.holder.close()


def check_tinker(
    settings: "TrainingSettings",
    base_url: str | None,
    list_models: Callable[[str | None], list[str]] = offered_models,
    *,
    seconds: float = _TINKER_SECONDS,
) -> Finding:
    """Checks key, service and models.

    Args:
        settings: Names the models.
        base_url: Of the service, `None` for the hosted one.
        list_models: Asks the service what it offers.
        seconds: How long the service may take to answer.
    """
    if not os.environ.get("TINKER_API_KEY"):
        return Finding("fatal", "tinker key", "set TINKER_API_KEY in the environment before the start")
    service = base_url or os.environ.get("TINKER_BASE_URL") or "the hosted service"
    try:
        offered = within(seconds, lambda: list_models(base_url))
    except Exception as error:
        said = f"{service}: {type(error).__name__}: {_one_line(error)}; check model.tinker.base_url and the key"
        return Finding("fatal", "tinker service", said)
    wanted = [("--model_path", settings.model_path)]
    if settings.grader == "auxiliary":  # Trinity takes every auxiliary model to Tinker too
        wanted.append(("--auxiliary_model_path", settings.auxiliary_model_path))
    missing = [(flag, model) for flag, model in wanted if model not in offered]
    if missing:
        named = " nor ".join(f"{flag} {model}" for flag, model in missing)
        near = [name for _, model in missing for name in difflib.get_close_matches(model, offered, n=2)]
        advice = f", did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        said = f"{service} does not offer {named}{advice}; it offers {', '.join(sorted(offered)) or 'nothing'}"
        return Finding("fatal", "tinker service", said)
    return Finding("ok", "tinker service", f"{service} offers {', '.join(model for _, model in wanted)}")


# --- grader ----------------------------------------------------------------------------------------------------------


def check_grader(
    grader: str, task: Task, ask_grader: AskGrader | None = None, *, seconds: float = _GRADER_SECONDS
) -> Finding:
    """Has the grader answer one real grading prompt, where it can be reached before the start.

    Args:
        grader: As in the settings.
        task: Its context and reference make the prompt.
        ask_grader: Sends the prompt; not needed for the offline grader.
        seconds: How long the grader may take.
    """
    if grader == "auxiliary":
        return Finding("ok", "grader", "an auxiliary model, it can only be tried once the engines are up")
    if grader == "offline" and ask_grader is None:
        from tuner.learn_to_ask.engines.offline import grade_answer

        ask_grader = grade_answer
    if ask_grader is None:
        return Finding("warning", "grader", f"--grader {grader} was not tried")
    ask = ask_grader
    messages = grading_messages(task.messages, _SAMPLE_QUESTION, task.info_truth)
    try:
        reply = within(seconds, lambda: ask(messages))
    except Exception as error:
        said = f"--grader {grader} does not answer: {type(error).__name__}: {_one_line(error)}; check its flags and key"
        return Finding("fatal", "grader", said)
    scores = parse_grade(reply)
    if scores is None:
        said = f"--grader {grader} answers without readable scores, use a model that follows the format: "
        return Finding("fatal", "grader", said + repr(reply[:120]))
    said = f"--grader {grader} answers: format {scores.format_score}, content {scores.content_score}"
    return Finding("ok", "grader", said)
