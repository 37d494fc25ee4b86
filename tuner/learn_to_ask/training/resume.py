"""Lets a killed run go on from its last checkpoint, and keeps it from going on with other settings."""

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import differences, file_digest, text_digest
from tuner.learn_to_ask.jsonl import write_text
from tuner.learn_to_ask.training.config_file import RunConfig, leaves
from tuner.learn_to_ask.training.settings import TrainingSettings

# Flags that may change between two parts of a run: where and how fast it runs, how long, how often it is saved.
_FREE = {
    "tensor_parallel_size",
    "inference_engine_num",
    "auxiliary_tensor_parallel_size",
    "auxiliary_engine_num",
    "grader_base_url",
    "grader_api_key_env",
    "total_epochs",
    "total_steps",
    "save_interval_steps",
}
# Of config.yaml, what decides what is learned.
_LEARNED = ("algorithm", "model")

_LATEST_SAMPLED = "latest_state_dict_iteration.txt"  # of Trinity, holds a step

Identity = dict[str, str]


def identity(settings: TrainingSettings, config: RunConfig, tasks_file: Path) -> Identity:
    """What a run learns from, name -> value: a run that differs in any of it is another run.

    Args:
        settings: The flags of main.py.
        config: What config.yaml says.
        tasks_file: The train split; its content counts, not its place.
    """
    flags = {f"--{key}": str(value) for key, value in dataclasses.asdict(settings).items() if key not in _FREE}
    flags["--learning_rate"] = f"{settings.resolved_learning_rate(tinker=config.tinker):g}"
    flags["--domain"] = f"content {text_digest(load_domain(settings.domain).model_dump_json(exclude={'vocabulary'}))}"
    flags["--data"] = f"content {file_digest(tasks_file)}"
    for section in _LEARNED:
        for parts, value in leaves(config.resolved.get(section) or {}, (section,)):
            key = ".".join(map(str, parts))
            if value != {} and key not in ("model.tinker.base_url", "model.tinker.seed"):
                flags[key] = str(value)
    return flags


def check_same_run(job_folder: Path, now: Identity) -> None:
    """Compares a run with the one whose checkpoints the folder holds.

    Raises:
        UserError: Naming every setting that changed, when there is something to go on from.
    """
    file = job_folder / "settings.json"
    if not last_checkpoint(job_folder) or not file.exists():
        return
    try:
        before: Identity = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: unreadable ({error}); give this run another `name` in config.yaml") from error
    if changed := differences(before, now):
        raise UserError(
            f"{job_folder}: cannot go on from step {last_checkpoint(job_folder)}, the run differs: {changed}. Use "
            "the former settings, or start a new run with another `name` in config.yaml"
        )


@contextmanager
def only_run(job_folder: Path) -> Iterator[None]:
    """Holds the folder of a run, so that no other one of the same name can start; a kill lets go of it.

    Raises:
        UserError: When another process holds it.
    """
    job_folder.mkdir(parents=True, exist_ok=True)
    with (job_folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{job_folder}: a run of this name is under way; wait for it, end it, or give this one another `name` "
                "in config.yaml"
            ) from error
        yield


def record(job_folder: Path, now: Identity) -> None:
    """Keeps what a run learns from, for `check_same_run`."""
    write_text(job_folder / "settings.json", json.dumps(now, indent=2, ensure_ascii=False))


def last_checkpoint(job_folder: Path) -> int:
    """The step of the newest whole checkpoint, 0 when there is none.

    Trinity writes `latest_checkpointed_iteration.txt` last, but not atomically: a kill may leave it empty. The
    flag file inside each checkpoint then tells.
    """
    file = job_folder / "latest_checkpointed_iteration.txt"
    text = file.read_text().strip() if file.exists() else ""
    if text.isdigit():
        return int(text)
    if not file.exists():
        return 0
    steps = (folder.name.rpartition("_")[2] for folder in job_folder.glob("global_step_*") if _is_whole(folder))
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    remote = checkpoint / "remote_checkpoint_path.txt"
    return (checkpoint / ".full_checkpoint").exists() and (not remote.exists() or bool(remote.read_text().strip()))


def disk_problem(job_folder: Path) -> str:
    """What to do when the next checkpoint has no room, judged by the largest so far; `""` when it has."""
    sizes = [
        sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        for checkpoint in job_folder.glob("global_step_*")
    ]
    free = shutil.disk_usage(job_folder).free
    if not sizes or free >= max(sizes):
        return ""
    return (
        f"the disk is full: {free / 1e9:.2f} GB free in {job_folder}, a checkpoint takes {max(sizes) / 1e9:.2f} GB; "
        "make room, or limit trainer.max_checkpoints_to_keep in config.yaml"
    )


def rewind(job_folder: Path, *, batch_size: int, explorer: str = "explorer") -> int:
    """Takes a killed run back to its last checkpoint.

    Trinity saves the explorer's place at every weight sync and the trainer's at every checkpoint. Left as they
    are, the explorer of a killed run would go on ahead of the trainer: the tasks in between would never be trained
    on, and both would wait for each other in the end.

    Args:
        job_folder: Of the run; nothing happens where there is none.
        batch_size: Tasks a step.
        explorer: `explorer.name` of config.yaml.

    Returns:
        The step it goes on from.
    """
    step = last_checkpoint(job_folder)
    latest = job_folder / "latest_checkpointed_iteration.txt"
    place = job_folder / f"{explorer}_meta.json"
    weights = job_folder / _LATEST_SAMPLED
    if not step:
        for file in (latest, place, weights, job_folder / "trainer_meta.json"):
            file.unlink(missing_ok=True)
        return 0
    write_text(latest, str(step))
    on_tinker = (job_folder / f"global_step_{step}" / "remote_checkpoint_path.txt").exists()
    if weights.exists() and not on_tinker:  # there, `save_sampler_weights` does it
        write_text(weights, str(step))
    state = {"latest_iteration": step, "taskset_states": [{"current_index": step * batch_size}]}
    write_text(place, json.dumps(state, indent=2))
    return step


def forget_sampler_weights(job_folder: Path) -> None:
    """Has `save_sampler_weights` do its work again: a service that is started anew has none of them loaded."""
    (job_folder / _LATEST_SAMPLED).unlink(missing_ok=True)


def save_sampler_weights(job_folder: Path, step: int, base_url: str | None) -> None:
    """Has the Tinker service make the weights of a checkpoint fit for sampling, unless they are the latest already.

    Trinity saves them at every weight sync only, and deletes older ones. Without those of the last checkpoint a
    resumed run would roll out with the base model, and a finished one could only be evaluated as it was some steps
    before its end.

    Args:
        job_folder: Of a run on Tinker.
        step: Of a checkpoint in it.
        base_url: Of the service, `None` for the hosted one.

    Raises:
        UserError: When the service does not know the checkpoint any more.
    """
    import tinker

    latest = job_folder / _LATEST_SAMPLED
    checkpoint = job_folder / f"global_step_{step}"
    sampler = checkpoint / "remote_sampler_path.txt"
    if latest.exists() and latest.read_text().strip() == str(step) and sampler.exists() and sampler.read_text():
        return
    state = (checkpoint / "remote_checkpoint_path.txt").read_text().strip()
    service: Any = tinker.ServiceClient(base_url=base_url) if base_url else tinker.ServiceClient()
    try:
        client = service.create_training_client_from_state(state)
        path = client.save_weights_for_sampler(f"{job_folder.parent.name}-{job_folder.name}-sampler-{step}").result()
    except tinker.TinkerError as error:
        raise UserError(f"{checkpoint}: the Tinker service cannot load {state}: {error}") from error
    finally:
        service.holder.close()
    write_text(sampler, path.path)
    write_text(latest, str(step))
