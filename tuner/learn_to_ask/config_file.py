"""Checks config.yaml before a run: every setting has one home, and nothing is silently overwritten."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tuner.learn_to_ask.errors import UserError

# Keys that tune() of agentscope 1.0.21 overwrites, whether or not they are set -> where they live instead.
HOMES = {
    "model.model_path": "--model_path",
    "model.max_model_len": "--max_model_len",
    "model.max_response_tokens": "--max_tokens",
    "buffer.total_epochs": "--total_epochs",
    "buffer.total_steps": "--total_steps",
    "buffer.batch_size": "--batch_size",
    "buffer.explorer_input.default_workflow_type": "main.py, which names the workflow itself",
    "buffer.explorer_input.taskset.path": "--data",
    "buffer.explorer_input.taskset.split": "--data",
    "buffer.explorer_input.taskset.subset_name": "--data",
    "buffer.explorer_input.taskset.default_workflow_type": "main.py, which names the workflow itself",
    "buffer.explorer_input.tasksets": "--data",
    "algorithm.algorithm_type": "main.py, which trains with GRPO",
    "algorithm.repeat_times": "--group_size",
    "algorithm.optimizer.lr": "--learning_rate",
    "trainer.save_interval": "--save_interval_steps",
    "explorer.eval_interval": "main.py; this recipe evaluates with script 3",
    "explorer.rollout_model": "the flags of the policy (--model_path, --tensor_parallel_size, ...)",
    "explorer.auxiliary_models": "the flags of the grader (--auxiliary_model_path, ...)",
}

_MAX_TIMEOUT = 1800.0  # Trinity's default of explorer.max_timeout
# The operator of the experience pipeline that keeps failed rollouts from stalling a run.
_OPERATOR = "tuner.learn_to_ask.failed_rollouts.LeaveOutFailedRollouts"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What main.py itself has to know of config.yaml.

    Attributes:
        raw: The file as it stands, interpolations unresolved.
        tinker: Whether a Tinker service trains and rolls out.
        base_url: Address of that service, `None` for the hosted one.
        ray_address: Of the cluster to use, `None` when the file leaves it open.
        rollout_seconds: Longest time for a group of rollouts, grading included.
        job_folder: Where checkpoints, logs and metrics of the run go.
    """

    raw: dict[str, Any]
    tinker: bool
    base_url: str | None
    ray_address: str | None
    job_folder: Path
    rollout_seconds: float = _MAX_TIMEOUT


def read_config(path: Path) -> RunConfig:
    """Reads and checks a config file.

    Raises:
        UserError: When it is no YAML mapping, an environment variable it uses is missing, or a key has
            another home.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config {path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"--config {path}: a mapping of Trinity-RFT's settings is expected")
    for key, home in HOMES.items():
        if _holds(raw, key):
            raise UserError(f"--config {path}: remove {key}, tune() would overwrite it; its home is {home}")
    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"--config {path}: {str(error).splitlines()[0]}") from error
    if resolved.get("continue_from_checkpoint") is False:
        raise UserError(
            f"--config {path}: continue_from_checkpoint: false would have Trinity rename the run behind our back; "
            "remove it, and give a new run a new `name`"
        )
    tinker = (resolved.get("model") or {}).get("tinker") or {}
    folders = [resolved.get(key) or "" for key in ("checkpoint_root_dir", "project", "group", "name")]
    return RunConfig(
        raw=raw,
        tinker=bool(tinker.get("enable")),
        base_url=tinker.get("base_url"),
        ray_address=(resolved.get("cluster") or {}).get("ray_address"),
        job_folder=Path.cwd().joinpath(*folders),
        rollout_seconds=float((resolved.get("explorer") or {}).get("max_timeout") or _MAX_TIMEOUT),
    )


def _holds(config: Any, key: str) -> bool:
    """Whether a dotted key is set."""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return False
        config = config[part]
    return True


def write_effective_config(config: RunConfig, path: Path, *, ray_address: str, rollouts: int) -> None:
    """Writes the config that `tune()` gets: the user's, with what depends on the run filled in.

    Args:
        config: The user's.
        path: The file to write.
        ray_address: Of the cluster.
        rollouts: Of a step, failed ones included; see failed_rollouts.py.
    """
    processor = config.raw.get("data_processor") or {}
    pipeline = processor.get("experience_pipeline") or {}
    operators = [{"name": _OPERATOR, "args": {"rollouts": rollouts}}, *(pipeline.get("operators") or [])]
    effective = {
        **config.raw,
        "cluster": {**(config.raw.get("cluster") or {}), "ray_address": ray_address},
        "data_processor": {**processor, "experience_pipeline": {**pipeline, "operators": operators}},
    }
    path.write_text(yaml.safe_dump(effective, sort_keys=False, allow_unicode=True), encoding="utf-8")
