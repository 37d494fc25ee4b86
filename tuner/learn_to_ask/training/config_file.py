"""Checks config.yaml before a run: every setting has one home, every key exists and holds what Trinity expects."""

import dataclasses
import difflib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.money import TRAINING_PASSES

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
}
# Keys of an engine that have a home among the flags -> the flag of the policy, of the grader. What else Trinity knows
# of an engine (dtype, enforce_eager, gpu_memory_utilization, ...) stays in the YAML: tune() has no argument for it and
# would drop it in silence, so main.py hands it over.
ENGINE_HOMES = {
    "model_path": ("--model_path", "--auxiliary_model_path"),
    "max_model_len": ("--max_model_len", "--max_model_len"),
    "max_response_tokens": ("--max_tokens", "--max_tokens"),
    "temperature": ("--temperature", "--grader_temperature"),
    "tensor_parallel_size": ("--tensor_parallel_size", "--auxiliary_tensor_parallel_size"),
    "engine_num": ("--inference_engine_num", "--auxiliary_engine_num"),
    "name": ("main.py, which names the models",) * 2,
    "reasoning_parser": ("main.py, which needs the whole answer",) * 2,
    "enable_openai_api": ("main.py, whose agent speaks it",) * 2,
    "enable_history": ("main.py, whose rollouts are read from it",) * 2,
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
_MODEL = f"{_VERL}.actor_rollout_ref.model"

_MAX_TIMEOUT = 1800.0  # Trinity's default of explorer.max_timeout
# The operator of the experience pipeline that keeps failed rollouts from stalling a run.
_OPERATOR = "tuner.learn_to_ask.training.failed_rollouts.LeaveOutFailedRollouts"
_COUNTER = "tuner.learn_to_ask.training.token_counts.CountTokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What main.py itself has to know of config.yaml.

    Attributes:
        raw: The file as it stands, interpolations unresolved.
        resolved: The same with interpolations resolved; what checks read.
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
    resolved: dict[str, Any] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """Where Ray keeps the names of this run's actors, as Trinity chooses it."""
        given = self.resolved.get("ray_namespace")
        return str(given or f"{self.resolved.get('project', 'Trinity-RFT')}/{self.resolved.get('name', 'rft')}")

    @property
    def engines(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the file says of the policy's and the grader's engines beyond the flags."""
        explorer = self.resolved.get("explorer") or {}
        return explorer.get("rollout_model") or {}, next(iter(explorer.get("auxiliary_models") or []), {})


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
    if problems := list(dict.fromkeys([*_engine_problems(resolved), *_schema_problems(resolved)])):
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
        resolved=resolved,
    )


def _engine_problems(config: dict[Any, Any]) -> Iterator[str]:
    """Keys of the engines that belong elsewhere, and more graders than the one there is."""
    graders = _value(config, "explorer.auxiliary_models")
    if isinstance(graders, list) and len(graders) > 1:
        yield f"explorer.auxiliary_models: one entry for the one grader is expected, not {len(graders)}"
    engines = [("explorer.rollout_model", _value(config, "explorer.rollout_model"), 0)]
    engines += [("explorer.auxiliary_models", grader, 1) for grader in (graders if isinstance(graders, list) else [])]
    for place, engine, role in engines:
        for key in engine if isinstance(engine, dict) else ():
            if key in ENGINE_HOMES:
                yield f"remove {place}.{key}, tune() would overwrite it; its home is {ENGINE_HOMES[key][role]}"


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


def flash_attention_needed(config: RunConfig) -> tuple[str, ...]:
    """The keys of the file that need flash_attn, whatever is installed; Trinity's own defaults are not among them."""
    model = _value(config.resolved, _MODEL) or {}
    needed = []
    if str(_value(model, "override_config.attn_implementation") or "").startswith("flash_attention"):
        needed.append(f"{_MODEL}.override_config.attn_implementation")
    if model.get("use_remove_padding"):
        needed.append(f"{_MODEL}.use_remove_padding")
    if (_value(config.resolved, "trainer.ulysses_sequence_parallel_size") or 1) > 1:
        needed.append("trainer.ulysses_sequence_parallel_size")
    return tuple(needed)


def has_flash_attention() -> bool:
    """Whether flash_attn is installed, which Trinity's trainer takes for granted."""
    return importlib.util.find_spec("flash_attn") is not None


def _without_flash_attention(raw: dict[str, Any]) -> dict[str, Any]:
    """The trainer section with PyTorch's attention, where the file itself says nothing of it."""
    trainer = raw.get("trainer") or {}
    config = trainer.get("trainer_config") or {}
    roles = config.get("actor_rollout_ref") or {}
    model = roles.get("model") or {}
    override = {"attn_implementation": "sdpa", **(model.get("override_config") or {})}
    model = {"use_remove_padding": False, **model, "override_config": override}
    return {**trainer, "trainer_config": {**config, "actor_rollout_ref": {**roles, "model": model}}}


def write_effective_config(
    config: RunConfig, path: Path, *, ray_address: str, rollouts: int, flash_attention: bool
) -> None:
    """Writes the config that `tune()` gets: the user's, with what depends on the run filled in.

    Args:
        config: The user's.
        path: The file to write.
        ray_address: Of the cluster.
        rollouts: Of a step, failed ones included; see failed_rollouts.py.
        flash_attention: Whether flash_attn is installed; without it the trainer gets PyTorch's attention.
    """
    processor = config.raw.get("data_processor") or {}
    pipeline = processor.get("experience_pipeline") or {}
    counted = {"training_passes": TRAINING_PASSES if config.tinker else 1, "reference": config.tinker}
    own = [{"name": _OPERATOR, "args": {"rollouts": rollouts}}, {"name": _COUNTER, "args": counted}]
    operators = [*own, *(pipeline.get("operators") or [])]
    effective = {
        **config.raw,
        "cluster": {**(config.raw.get("cluster") or {}), "ray_address": ray_address},
        "data_processor": {**processor, "experience_pipeline": {**pipeline, "operators": operators}},
    }
    # tune() replaces the one and appends to the other: main.py hands them over, see `RunConfig.engines`.
    explorer = {**(config.raw.get("explorer") or {})}
    explorer.pop("rollout_model", None)
    explorer.pop("auxiliary_models", None)
    effective["explorer"] = explorer
    if not (config.tinker or flash_attention or _value(config.resolved, "trainer.trainer_strategy") == "megatron"):
        effective["trainer"] = _without_flash_attention(config.raw)
    path.write_text(yaml.safe_dump(effective, sort_keys=False, allow_unicode=True), encoding="utf-8")
