"""Checks of services: Tinker offers the models, the grader grades, the monitor can be imported."""

import difflib
import importlib
import os
from collections.abc import Callable
from typing import Any

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.grading import parse_grade
from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.prompt import grading_messages
from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.grader import GraderSettings, GradingError, try_grader
from tuner.learn_to_ask.training.preflight.findings import Finding, one_line, within
from tuner.learn_to_ask.training.settings import TrainingSettings

_TINKER_SECONDS = 20.0
_GRADER_SECONDS = 120.0
# What Trinity's monitors import, and where each sends its figures (trinity/utils/monitor.py).
_MONITORS = {
    "tensorboard": ("torch.utils.tensorboard", "files in the run's folder, works offline"),
    "wandb": ("wandb", "Weights & Biases; the key from WANDB_API_KEY or `wandb login`"),
    "mlflow": ("mlflow", "an MLflow server, monitor.monitor_args.uri or http://localhost:5000"),
    "swanlab": ("swanlab", "SwanLab; the key from SWANLAB_API_KEY"),
}


def check_monitor(config: RunConfig) -> Finding:
    """Imports what the monitor of config.yaml needs: Trinity would only fail once its actors are up."""
    name = config.monitor
    module, place = _MONITORS[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        package = "tensorboard" if name == "tensorboard" else module
        said = f"monitor.monitor_type {name} cannot be imported ({one_line(error)}): pip install {package}, "
        return Finding(
            "fatal", "monitor", f"{said}or choose {', '.join(other for other in _MONITORS if other != name)}"
        )
    if name == "swanlab" and not os.environ.get("SWANLAB_API_KEY"):
        return Finding("fatal", "monitor", "set SWANLAB_API_KEY in the environment before Ray starts")
    return Finding("ok", "monitor", f"{name}: {place}")


def offered_models(base_url: str | None) -> list[str]:
    """Asks a Tinker service which models it offers."""
    import tinker

    service: Any = tinker.ServiceClient(base_url=base_url) if base_url else tinker.ServiceClient()
    try:
        return [model.model_name for model in service.get_server_capabilities().supported_models if model.model_name]
    finally:
        service.holder.close()


def check_tinker(
    settings: TrainingSettings,
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
        said = f"{service}: {type(error).__name__}: {one_line(error)}; check model.tinker.base_url and the key"
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


def check_grader(
    grader: GraderSettings, task: Task, domain: Domain | None = None, *, seconds: float = _GRADER_SECONDS
) -> Finding:
    """Has the grader answer one real grading prompt, where it can be reached before the start.

    Args:
        grader: Who grades and how.
        task: Its context and reference make the prompt.
        domain: Its texts; the medical one where none is given.
        seconds: How long the grader may take.
    """
    name = grader.grader
    if name == "auxiliary":
        return Finding("ok", "grader", "an auxiliary model, it can only be tried once the engines are up")
    domain = domain or default_domain()
    messages = grading_messages(task.messages, domain.policy.example, task.info_truth, domain)
    try:
        trial = within(seconds, lambda: try_grader(messages, grader, domain))
    except (GradingError, UserError) as error:
        return Finding("fatal", "grader", f"--grader {name} does not answer: {one_line(error)}")
    except TimeoutError:
        return Finding("fatal", "grader", f"--grader {name} does not answer within {seconds:g} s")
    scores = parse_grade(trial.reply)
    if scores is None:
        said = f"--grader {name} answers without readable scores, use a model that follows the format: "
        return Finding("fatal", "grader", said + repr(trial.reply[:120]))
    said = f"--grader {name} answers: format {scores.format_score}, content {scores.content_score}"
    if trial.fitted:
        said += f" ({'; '.join(trial.fitted)})"
    return Finding("ok", "grader", said)
