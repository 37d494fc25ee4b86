"""Finds what an engine can load where a path leads: a model, a training run, a checkpoint, an adapter."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_files import missing_model_files

TINKER = "tinker://"
CONVERTED = "huggingface_converted"  # beside the shards; made by `checkpoint_conversion`

_STEP = re.compile(r"global_step_(\d+)")
_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_LATEST = ("latest_checkpointed_iteration.txt", "latest_state_dict_iteration.txt")
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json")
_NAMED = 12  # how many entries of a folder an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter on a base model.

    Attributes:
        folder: Its configuration and weights.
        rank: The largest rank of its matrices.
        tokenizer: Whether the folder also holds the tokenizer.
    """

    folder: str
    rank: int
    tokenizer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """What a path resolves to.

    Attributes:
        given: The path as the user gave it.
        model: What an engine loads: a hub id, a folder or a `tinker://` path; for an adapter the base model.
        adapter: What is laid over the model.
        shards: The folder of a trainer's shards that first have to be converted into `model`.
        step: Of the checkpoint, when it is one.
    """

    given: str
    model: str
    adapter: Adapter | None = None
    shards: Path | None = None
    step: int | None = None

    @property
    def tinker(self) -> bool:
        """Whether only a Tinker service has the weights."""
        return self.model.startswith(TINKER)

    @property
    def name(self) -> str:
        """What to call the model in logs and fingerprints: it changes when a run has a newer checkpoint."""
        origin = f"{self.given}, step {self.step}" if self.step is not None else self.given
        if self.tinker:
            return self.model if self.model == self.given else f"{self.model} ({origin})"
        return origin

    @property
    def explanation(self) -> str:
        """What will be loaded, `""` when it is the given path itself."""
        parts = [f"step {self.step}"] if self.step is not None else []
        if self.shards:
            parts.append(f"shards in {self.shards}, as a Hugging Face model in {self.model}")
        elif self.adapter:
            parts.append(f"LoRA adapter {self.adapter.folder} on {self.model}")
        elif self.model != self.given:
            parts.append(self.model)
        return ", ".join(parts)


def find_model(given: str, *, flag: str) -> ModelSource:
    """Resolves a path without loading or writing anything.

    Args:
        given: A hub id, a `tinker://` path, a Hugging Face folder, a LoRA adapter, a Trinity run (its newest checkpoint
            counts), a `global_step_N` of one, or a folder inside it.
        flag: That named it, for error messages.

    Raises:
        UserError: When it is none of these, or one that lacks files; saying what was looked for and what is there.
    """
    path = Path(given)
    if given.startswith(TINKER) or not (path.exists() or _looks_local(given)):
        return ModelSource(given=given, model=given)
    if not path.is_dir():
        raise UserError(f"{flag} {given}: {'is a file' if path.exists() else 'no such folder'}; name a model's folder")
    try:
        return _in_folder(path, given)
    except _Unusable as error:
        raise UserError(f"{flag} {given}: {error}") from None


class _Unusable(Exception):  # noqa: N818  # what is wrong, without the flag that `find_model` puts before it
    """A folder that is recognised and cannot be used."""


def _in_folder(path: Path, given: str) -> ModelSource:
    """What an existing folder resolves to."""
    if (path / "adapter_config.json").is_file():
        return _adapter(path, given, None)
    is_model = (path / "config.json").is_file()
    missing = missing_model_files(path) if is_model else []
    if is_model and not missing:
        return ModelSource(given=given, model=given, step=_step_of(path))
    # A part of a checkpoint stands for it: the shards are beside the config that Trinity saves without weights.
    parts = [path, path.absolute().parent] if path.name in ("actor", "huggingface") else [path]
    for folder in parts:
        if _is_checkpoint(folder):
            return _checkpoint(folder, given)
    if is_model:
        raise _Unusable(f"the Hugging Face model there is incomplete, it lacks {', '.join(missing)}")
    steps = {int(match[1]): folder for folder in path.iterdir() if (match := _STEP.fullmatch(folder.name))}
    if steps:
        return _newest(path, steps, given)
    raise _Unusable(
        "holds no model. Looked for: a Hugging Face model (config.json), a LoRA adapter (adapter_config.json), a "
        "Trinity run (global_step_*), a checkpoint (remote_sampler_path.txt, actor/lora_adapter, actor/huggingface, "
        f"actor/model_world_size_*_rank_*.pt, actor/dist_ckpt). There is: {_contents(path)}"
    )


def _newest(run: Path, steps: dict[int, Path], given: str) -> ModelSource:
    """The newest finished checkpoint of a run, by what Trinity notes down when one is complete."""
    noted = {step for name in _LATEST if (step := _read_step(run / name)) in steps}
    errors = []
    for step in sorted(noted or {max(steps)}, reverse=True):
        try:
            return _checkpoint(steps[step], given)
        except _Unusable as error:
            errors.append(f"global_step_{step}: {error}")
    raise _Unusable("; ".join(errors))


def _read_step(file: Path) -> int:
    """The step that a file notes, -1 when it does not."""
    text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    return int(text) if text.isdecimal() else -1


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint or the part of one with the policy's weights."""
    return (
        _STEP.fullmatch(folder.name) is not None
        or any((folder / part / "dist_ckpt").is_dir() for part in ("", "actor"))
        or any(_SHARD.fullmatch(file.name) for part in ("", "actor") for file in _entries(folder / part))
    )


def _checkpoint(folder: Path, given: str) -> ModelSource:
    """What a checkpoint resolves to: the trainer's own export before anything that has to be converted."""
    step = _step_of(folder)
    sampler = folder / "remote_sampler_path.txt"
    if sampler.is_file() and (path := sampler.read_text(encoding="utf-8").strip()).startswith(TINKER):
        return ModelSource(given=given, model=path, step=step)
    if (folder / "remote_checkpoint_path.txt").is_file():
        raise _Unusable(
            "holds the training state of a Tinker run (remote_checkpoint_path.txt) and no weights to sample from "
            "(remote_sampler_path.txt); name another step, or the tinker:// path of sampler weights"
        )
    actor = folder / "actor" if (folder / "actor").is_dir() else folder
    if (actor / "lora_adapter" / "adapter_config.json").is_file():
        return _adapter(actor / "lora_adapter", given, step)
    export = actor / "huggingface"
    lacks = missing_model_files(export) if export.is_dir() else ["the folder"]
    if not lacks:
        return ModelSource(given=given, model=str(export), step=step)
    if (actor / "dist_ckpt").is_dir() or any(_SHARD.fullmatch(file.name) for file in _entries(actor)):
        return _shards(actor, given, step)
    raise _Unusable(
        f"holds no weights. Looked for: remote_sampler_path.txt, actor/lora_adapter, actor/huggingface (lacks "
        f"{', '.join(lacks)}), actor/model_world_size_*_rank_*.pt, actor/dist_ckpt. There is: {_contents(folder)}"
    )


def _shards(actor: Path, given: str, step: int | None) -> ModelSource:
    """A checkpoint that has to be converted, when it is complete."""
    missing = [] if (actor / "huggingface" / "config.json").is_file() else ["huggingface/config.json"]
    if not (actor / "dist_ckpt").is_dir():
        try:
            world = int(json.loads((actor / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"])
        except (OSError, ValueError, KeyError, TypeError):
            missing.append("a readable fsdp_config.json")
        else:
            names = (f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world))
            missing += [name for name in names if not (actor / name).is_file()]
    if missing:
        raise _Unusable(
            f"the shards in {actor} are incomplete, they lack {_listed(missing)}; when several nodes saved them, "
            "bring them together in one folder"
        )
    return ModelSource(given=given, model=str(actor / CONVERTED), shards=actor, step=step)


def _adapter(folder: Path, given: str, step: int | None) -> ModelSource:
    """A LoRA adapter with its base model."""
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind, base, rank = config["peft_type"], config["base_model_name_or_path"], config["r"]
        rank = max(rank, *(config.get("rank_pattern") or {}).values(), 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Unusable(f"{file}: no LoRA configuration ({type(error).__name__}: {error})") from None
    if kind != "LORA":
        raise _Unusable(f"{file}: a {kind} adapter; only LORA can be used")
    if not any((folder / name).is_file() for name in _ADAPTER_WEIGHTS):
        raise _Unusable(f"{folder}: lacks the adapter's weights ({' or '.join(_ADAPTER_WEIGHTS)})")
    if not base:
        raise _Unusable(f"{file}: base_model_name_or_path is empty; write the base model there")
    try:
        found = find_model(base, flag="base_model_name_or_path")
    except UserError as error:
        raise _Unusable(f"{file}: {error}; write there where the base model is now") from None
    if found.adapter or found.shards or found.tinker:
        raise _Unusable(f"{file}: base_model_name_or_path {base} is no plain Hugging Face model")
    tokenizer = any((folder / name).is_file() for name in _TOKENIZER)
    adapter = Adapter(folder=str(folder), rank=rank, tokenizer=tokenizer)
    return ModelSource(given=given, model=found.model, adapter=adapter, step=_step_of(folder) if step is None else step)


def _step_of(folder: Path) -> int | None:
    """The step of the checkpoint that a folder is or lies in."""
    steps = [match[1] for part in folder.absolute().parts if (match := _STEP.fullmatch(part))]
    return int(steps[-1]) if steps else None


def _looks_local(given: str) -> bool:
    """Whether a path that does not exist was meant for a folder and not for a hub id."""
    return Path(given).is_absolute() or given.startswith((".", "~")) or given.count("/") > 1


def _entries(folder: Path) -> Iterable[Path]:
    """What a folder holds, nothing when there is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _contents(folder: Path) -> str:
    """What a folder holds, for reading."""
    return _listed([f"{entry.name}/" if entry.is_dir() else entry.name for entry in _entries(folder)]) or "nothing"


def _listed(names: list[str]) -> str:
    """Names, the first of many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
