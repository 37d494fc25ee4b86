"""Checks of models and disk: policy and grader are whole, checkpoints have room, an earlier run can go on."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tuner.learn_to_ask.engines.transformers import require_model
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_files import missing_model_files, missing_names, parameter_count
from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.dataset import train_file
from tuner.learn_to_ask.training.preflight.findings import Finding, gigabytes, listed, one_line, within
from tuner.learn_to_ask.training.resume import check_same_run, identity, last_checkpoint
from tuner.learn_to_ask.training.settings import TrainingSettings

_HUB_SECONDS = 10.0
_TRAINING_BYTES = 14  # of a full checkpoint for each parameter: weights, master weights, two Adam moments
_EXPORT_BYTES = 2  # of the Hugging Face export for each parameter


def check_checkpoints(settings: TrainingSettings, config: RunConfig) -> Finding:
    """Says whether the run is new or goes on, and refuses to go on with other settings."""
    step = last_checkpoint(config.job_folder)
    if not step:
        return Finding("ok", "checkpoints", f"none in {config.job_folder}: a new run")
    check_same_run(config.job_folder, identity(settings, config, train_file(settings.data)))
    return Finding("ok", "checkpoints", f"the run goes on from step {step} in {config.job_folder}")


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
    try:
        require_model(model_path)
    except UserError:
        return ModelPlace("", "no such model folder (a config.json is looked for); name a folder or a hub id")
    folder = Path(model_path)
    if folder.is_dir():
        missing = missing_model_files(folder, weights=weights)
        problem = f"incomplete, it lacks {listed(missing)}; copy the whole model" if missing else ""
        return ModelPlace("local folder", problem, parameter_count(folder) if weights else None)
    cached = _cached_snapshot(model_path)
    if cached and not missing_model_files(cached, weights=weights):
        return ModelPlace("in the hub's cache", "", parameter_count(cached) if weights else None)
    return _on_the_hub(model_path, weights=weights)


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
        reason = f"{type(error).__name__}: {one_line(error)}"
        return ModelPlace("", f"not cached and not to be had from {constants.ENDPOINT}: {reason}")
    missing = missing_names({file.rfilename for file in info.siblings or []}, weights=weights)
    problem = f"no model that can be trained: the hub's copy lacks {listed(missing)}" if missing else ""
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
        return Finding("ok", "disk", f"{gigabytes(free)} free in {existing}; the size of a checkpoint is not known yet")
    needed = parameters * (_TRAINING_BYTES + _EXPORT_BYTES)
    said = f"{gigabytes(free)} free in {existing}, a checkpoint with its export takes about {gigabytes(needed)}"
    if free >= needed:
        return Finding("ok", "disk", f"{said}: room for {free // needed}; trainer.max_checkpoints_to_keep limits them")
    return Finding("fatal", "disk", f"{said}: free some or set TRINITY_CHECKPOINT_ROOT_DIR to a larger disk")
