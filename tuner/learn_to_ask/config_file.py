"""Checks config.yaml before a run: every setting has one home, every key exists and holds what Trinity expects."""

import dataclasses
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

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
# Trinity prints its whole config, and Ray keeps the variables of its workers: no place for keys.
SECRETS = {
    "monitor.monitor_args.api_key": "WANDB_API_KEY",
    "monitor.monitor_args.password": "MLFLOW_TRACKING_PASSWORD",
}
_SECRET_WORDS = {"KEY", "TOKEN", "SECRET", "PASSWORD"}

# Texts of which Trinity's schema takes any and its validators only these.
_CHOICES = {
    "explorer.concurrent_mode": ("sequential", "asynchronous", "multi-threading"),
    "trainer.save_hf_checkpoint": ("last", "always", "never"),
    "monitor.monitor_type": ("tensorboard", "wandb", "mlflow", "swanlab"),
}
_VERL = "trainer.trainer_config"  # open in Trinity's schema; its validator merges it into one of its own

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
        monitor: What the metrics are logged with.
    """

    raw: dict[str, Any]
    tinker: bool
    base_url: str | None
    ray_address: str | None
    job_folder: Path
    rollout_seconds: float = _MAX_TIMEOUT
    monitor: str = "tensorboard"


def read_config(path: Path) -> RunConfig:
    """Reads and checks a config file.

    Raises:
        UserError: When it is no YAML mapping, an environment variable it uses is missing, a key has another
            home, a secret stands in it, or Trinity would refuse a key or its value.
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
    for key, variable in SECRETS.items():
        if _holds(raw, key):
            raise UserError(f"--config {path}: remove {key}, it would be logged; set {variable} in the environment")
    variables = _value(raw, "explorer.env_vars")
    for name in variables if isinstance(variables, dict) else ():
        if _SECRET_WORDS & set(str(name).upper().split("_")):
            said = "it would be logged; set it in the environment before Ray starts"
            raise UserError(f"--config {path}: remove explorer.env_vars.{name}, {said}")
    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"--config {path}: {str(error).splitlines()[0]}") from error
    if resolved.get("continue_from_checkpoint") is False:
        raise UserError(
            f"--config {path}: continue_from_checkpoint: false would have Trinity rename the run behind our back; "
            "remove it, and give a new run a new `name`"
        )
    if problems := list(dict.fromkeys(_schema_problems(resolved))):
        raise UserError(f"--config {path}: {'; '.join(problems)}")
    tinker = (resolved.get("model") or {}).get("tinker") or {}
    folders = [resolved.get(key) or "" for key in ("checkpoint_root_dir", "project", "group", "name")]
    return RunConfig(
        raw=raw,
        tinker=bool(tinker.get("enable")),
        base_url=tinker.get("base_url"),
        ray_address=(resolved.get("cluster") or {}).get("ray_address"),
        job_folder=Path.cwd().joinpath(*folders),
        rollout_seconds=float((resolved.get("explorer") or {}).get("max_timeout") or _MAX_TIMEOUT),
        monitor=(resolved.get("monitor") or {}).get("monitor_type") or "tensorboard",
    )


def _schema_problems(config: dict[Any, Any]) -> Iterator[str]:
    """What Trinity would refuse, all of it, where its own `load_config` stops at the first and without the key."""
    from trinity.common.config import Config

    yield from _merge_problems(Config, config)
    for key, choices in _CHOICES.items():
        value = _value(config, key)
        if isinstance(value, str) and value not in choices:
            yield f"{key} {value!r} is none of {', '.join(choices)}"
    if isinstance(verl := _value(config, _VERL), dict) and verl:
        from trinity.trainer.verl.verl_config import veRLConfig

        yield from _merge_problems(veRLConfig, verl, prefix=f"{_VERL}.")


def _merge_problems(schema: type, config: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    """Merges every single value into a schema, as `load_config` does with the whole.

    Args:
        schema: A dataclass.
        config: The values.
        prefix: Stands before the keys in the messages.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    base = OmegaConf.structured(schema)
    for parts, value in leaves(config):
        nested = value
        for part in reversed(parts):
            nested = {part: nested}
        key = ".".join(map(str, parts))
        try:
            OmegaConf.merge(base, OmegaConf.create(nested))
        except ConfigKeyError as error:
            unknown = str(error.full_key)
            if not f"{key}.".startswith(f"{unknown}."):  # inside a list, whose path is not told
                unknown = f"{key}.{unknown}"
            yield f"{prefix}{unknown}: unknown key{_nearest(unknown, error.object_type, schema, prefix)}"
        except OmegaConfBaseException as error:
            if value is None:
                yield f"{prefix}{key}: has no value; give it one or remove the key"
            elif "Merge error" in str(error):
                yield f"{prefix}{key}: keys of its own are expected below it, not {value!r}"
            else:
                yield f"{prefix}{key}: {str(error).splitlines()[0]}"


def leaves(config: dict[Any, Any], parents: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Path and value of everything that is no mapping itself; an empty mapping counts as a value."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*parents, key))
        else:
            yield (*parents, key), value


def _nearest(unknown: str, place: Any, schema: type, prefix: str) -> str:
    """Asks for the key that may have been meant: this name elsewhere, else one like it beside, else elsewhere.

    Args:
        unknown: The whole key.
        place: The dataclass that lacks it.
        schema: The dataclass of the whole file.
        prefix: Of the schema's keys.
    """
    parent, _, last = unknown.rpartition(".")
    beside = [field.name for field in dataclasses.fields(place)] if dataclasses.is_dataclass(place) else []
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(list(_keys(schema)))}
    if last not in elsewhere and (matches := difflib.get_close_matches(last, beside, n=1)):
        found = ".".join(filter(None, (parent, matches[0])))
    elif matches := difflib.get_close_matches(last, elsewhere, n=1, cutoff=0.8):
        found = elsewhere[matches[0]]
    else:
        return f"; there are {', '.join(sorted(beside))}" if beside else ""
    home = HOMES.get(prefix + found)
    return f", did you mean {prefix}{found}?" + (f" Its home is {home}" if home else "")


def _keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a schema, lists and open mappings left out."""
    for name, hint in get_type_hints(schema).items():
        yield prefix + name
        if get_origin(hint) not in (list, dict):
            for kind in (hint, *get_args(hint)):
                if dataclasses.is_dataclass(kind):
                    yield from _keys(kind, f"{prefix}{name}.")


def _value(config: Any, key: str) -> Any:
    """The value of a dotted key, `None` when it is not set."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


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
