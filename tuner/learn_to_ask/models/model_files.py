"""What a folder must hold to be a Hugging Face model."""

import json
from pathlib import Path


def missing_model_files(folder: Path, *, weights: bool = True) -> list[str]:
    """Names what a model folder lacks: config, tokenizer, weights with every shard of their index."""
    names = {file.name for file in folder.iterdir()}
    missing = missing_names(names, weights=weights)
    if not weights:
        return missing
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            missing.append(f"a readable {index.name}")
            continue
        missing += sorted(shards - names)
    pointers = [file.name for file in _weight_files(folder) if _is_pointer(file)]
    return missing + [f"the content of {name} (empty or a git-lfs pointer)" for name in pointers]


def missing_names(names: set[str], *, weights: bool) -> list[str]:
    """What a list of file names lacks to be a model."""
    tokenizer = names & {"tokenizer.json", "tokenizer.model"} or {"vocab.json", "merges.txt"} <= names
    weighty = any(name.endswith(".safetensors") or _is_bin(name) for name in names)
    return [
        *([] if "config.json" in names else ["config.json"]),
        *([] if tokenizer else ["the tokenizer files"]),
        *([] if weighty or not weights else ["weights (*.safetensors or *.bin)"]),
    ]


def _is_bin(name: str) -> bool:
    """Whether a file holds weights in PyTorch's own format; optimizer states and arguments do too."""
    return name.startswith("pytorch_model") and name.endswith(".bin")


def _weight_files(folder: Path) -> list[Path]:
    """The weights, in safetensors where there are both formats."""
    files = sorted(folder.glob("*.safetensors"))
    return files or [file for file in sorted(folder.glob("*.bin")) if _is_bin(file.name)]


def _is_pointer(file: Path) -> bool:
    """Whether a file was cloned without its content."""
    if file.stat().st_size > 1024:
        return False
    content = file.read_bytes()
    return not content or content.startswith(b"version https://git-lfs")


def parameter_count(folder: Path) -> int | None:
    """Parameters, from the size of the weights and the type that config.json names."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    dtype = (config.get("torch_dtype") or config.get("dtype")) if isinstance(config, dict) else None
    size = sum(file.stat().st_size for file in _weight_files(folder))
    return size // (4 if dtype == "float32" else 2) or None
