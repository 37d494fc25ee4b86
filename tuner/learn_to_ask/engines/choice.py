"""Which engine the flags mean, and which model it loads."""

import argparse
from pathlib import Path

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_source import ModelSource, find_model


def choose_engine(
    arguments: argparse.Namespace, *, prefix: str, model_path: str | None, model_flag: str
) -> tuple[str, str, ModelSource | None]:
    """The engine that the flags mean, why when it was not named, and what it loads; complains about missing flags."""
    name, base_url = getattr(arguments, f"{prefix}engine"), getattr(arguments, f"{prefix}base_url")
    replicas = getattr(arguments, f"{prefix}replicas") is not None
    if replicas and (name not in ("auto", "vllm") or base_url):
        other = f"the {name} engine" if name != "auto" else f"a server, --{prefix}base_url,"
        raise UserError(f"--{prefix}replicas: {other} has none; leave it out, or choose --{prefix}engine vllm")
    if name == "offline":
        return name, "", None
    if name == "openai" or (name == "auto" and base_url):
        for needed in ("base_url", "model"):
            if not getattr(arguments, f"{prefix}{needed}"):
                raise UserError(f"--{prefix}{needed}: the openai engine needs it")
        return "openai", "" if name == "openai" else f"--{prefix}base_url names a server", None
    if not model_path and name == "auto":
        raise UserError(f"{model_flag} or --{prefix}base_url: name a model, or choose another --{prefix}engine")
    if not model_path:
        raise UserError(f"{model_flag}: the {name} engine needs a model")
    if name == "tinker" and not Path(model_path).exists():
        return name, "", ModelSource(given=model_path, model=model_path)  # a path may be one of the service's machine
    source = find_model(model_path, flag=model_flag)
    if name == "auto":
        return *_fitting_engine(source, model_flag=model_flag, replicas=replicas), source
    if source.tinker != (name == "tinker") and (source.tinker or source.adapter or source.shards):
        where = "on a Tinker service" if source.tinker else "on this machine"
        raise UserError(f"{model_flag} {model_path}: its weights are {where}, the {name} engine cannot use them")
    return name, "", source


def _fitting_engine(source: ModelSource, *, model_flag: str, replicas: bool) -> tuple[str, str]:
    """The engine that fits a model, and why."""
    from tuner.learn_to_ask.engines.vllm import installed

    if source.tinker:
        how = "is a tinker:// path" if source.model == source.given else "leads to weights on a Tinker service"
        return "tinker", f"{model_flag} {how}"
    if replicas:
        return "vllm", "it has replicas"
    if installed():
        return "vllm", "it is installed"
    return "transformers", "vLLM is not installed"
