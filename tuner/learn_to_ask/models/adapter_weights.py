"""Reads which modules a LoRA adapter changes off its weights, and refuses one that does not fit its model."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_source import Adapter

_LORA_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?:embedding_)?(?P<part>[AB])(?:\..+)?")
_NAMED = 3  # how many names an error lists


def changed_modules(adapter: Adapter, model_modules: Iterable[str]) -> list[str]:
    """The modules that an adapter holds weights for, each of which is one of the model's.

    The weights decide, not `target_modules` of the configuration: some trainers leave it open (`null`), and peft then
    takes what is usual for the architecture and drops the rest of the weights in silence.

    Args:
        adapter: On a model.
        model_modules: The names of the model's modules.

    Raises:
        UserError: When a weight has no module to change, a module has only one of its two matrices, or the
            configuration names modules that there are no weights for.
    """
    parts: dict[str, set[str]] = {}
    for key in _keys(Path(adapter.folder)):
        if match := _LORA_KEY.fullmatch(key):
            parts.setdefault(match["module"], set()).add(match["part"])
    known = set(model_modules)
    _refuse(adapter, "holds weights for modules that its base model has not", parts.keys() - known)
    _refuse(adapter, "holds one of two matrices for", {name for name, found in parts.items() if len(found) < 2})
    if not parts:
        raise UserError(f"adapter {adapter.folder}: its file holds no LoRA weights (…lora_A.weight, …lora_B.weight)")
    config = json.loads((Path(adapter.folder) / "adapter_config.json").read_text(encoding="utf-8"))
    wanted = {name for name in known if _is_configured(config, name)}
    _refuse(adapter, "is configured for modules that its file has no weights for", wanted - parts.keys())
    return sorted(parts)


def module_names(model_path: str, *, trust_remote_code: bool) -> list[str]:
    """The names of a model's modules, without its weights.

    Args:
        model_path: A local folder or a hub id.
        trust_remote_code: Whether to run the code that the model brings along.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return [name for name, _ in model.named_modules()]


def _is_configured(config: dict[str, Any], module: str) -> bool:
    """Whether `target_modules` of a configuration is sure to mean a module."""
    targets = config.get("target_modules")
    if any(config.get(key) for key in ("exclude_modules", "layers_to_transform", "modules_to_save")):
        return False
    if isinstance(targets, str):
        return targets != "all-linear" and re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets or ())


def _keys(folder: Path) -> list[str]:
    """The names of the weights in an adapter's file."""
    file = folder / "adapter_model.safetensors"
    if file.is_file():
        from safetensors import safe_open

        with safe_open(file, framework="pt") as weights:
            return list(weights.keys())
    import torch

    return list(torch.load(folder / "adapter_model.bin", map_location="cpu", weights_only=True))


def _refuse(adapter: Adapter, why: str, modules: Iterable[str]) -> None:
    """Raises a `UserError` that names the first of some modules, if there are any."""
    names = sorted(modules)
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise UserError(f"adapter {adapter.folder}: {why}: {', '.join(names[:_NAMED])}{more}")
