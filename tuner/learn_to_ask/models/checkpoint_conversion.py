"""Converts a trainer's shards into a Hugging Face model, once, with Trinity's own converter."""

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.models.model_files import missing_model_files
from tuner.learn_to_ask.models.model_source import ModelSource

_ERROR_LINES = 3  # of the converter's last words that an error repeats


def convert_shards(source: ModelSource) -> None:
    """Makes `source.model` from `source.shards`, unless that was done before.

    `trinity convert` would write into the checkpoint and call a failure a success. So it works on links to the
    shards in a folder of its own, which gets its name when the result has been looked at: a conversion that was
    killed leaves nothing that looks finished. Weights become bfloat16, as Trinity exports them itself.

    Raises:
        UserError: When the checkpoint cannot be converted or its folder cannot be written.
    """
    assert source.shards is not None
    shards, target = source.shards, Path(source.model)
    try:
        with _locked(target.with_name(f"{target.name}.lock")) as lock:
            if _is_current(target, shards):
                return
            started = time.monotonic()
            print(f"converting {shards} to {target}, once for this checkpoint", file=sys.stderr)
            _convert(shards, target, lock)
            print(f"converted in {time.monotonic() - started:.0f} s", file=sys.stderr)
    except OSError as error:
        raise UserError(
            f"{shards}: its Hugging Face model cannot be written beside it: {error.strerror}; make room, or copy the "
            "checkpoint to where there is some"
        ) from error


def _convert(shards: Path, target: Path, lock: int) -> None:
    """Runs the converter and puts its result in place."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
    # The layout and the name of a checkpoint are what the converter goes by.
    actor = partial / "global_step_0" / "actor"
    shutil.copytree(
        shards / "huggingface", actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors*", "*.bin*")
    )
    for entry in shards.iterdir():
        if entry.name == "dist_ckpt" or entry.suffix in (".pt", ".json"):
            (actor / entry.name).symlink_to(entry.absolute())
    log = partial / "converter.log"
    command = [sys.executable, "-P", "-m", "trinity.cli.launcher", "convert", "--checkpoint-dir", str(actor.parent)]
    with log.open("wb") as output:
        # It inherits the lock: should this process be killed, the next one waits until the converter has ended.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, pass_fds=[lock], check=False
        )
    result = actor / "huggingface"
    missing = missing_model_files(result)
    if done.returncode or missing:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_ERROR_LINES:]
        raise UserError(
            f"{shards}: trinity convert failed (exit code {done.returncode}, its result lacks "
            f"{', '.join(missing) or 'nothing'}): {' | '.join(lines)}. All it said is in {log}"
        )
    if lora := _lora_weights(result):
        raise UserError(
            f"{shards}: the shards hold a LoRA adapter ({lora}) that the converter cannot merge, and the checkpoint "
            "has no lora_adapter folder beside them; evaluate a checkpoint that Trinity saved with one"
        )
    shutil.rmtree(target, ignore_errors=True)
    result.rename(target)
    shutil.rmtree(partial, ignore_errors=True)


def _is_current(target: Path, shards: Path) -> bool:
    """Whether the shards were converted since they were written; a run may write the same step again."""
    if not target.is_dir() or missing_model_files(target):
        return False
    converted = (target / "config.json").stat().st_mtime
    return all(file.stat().st_mtime <= converted for file in shards.glob("model_world_size_*.pt"))


def _lora_weights(folder: Path) -> str:
    """The name of one adapter weight among those of a model, `""` when there is none."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  # no mapping
                if "lora_" in name:
                    return str(name)
    return ""


@contextmanager
def _locked(file: Path) -> Iterator[int]:
    """Keeps out other processes that would convert the same; gives the lock's file descriptor."""
    with file.open("ab") as lock:  # stays behind: removed, it could be locked and missing at once
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{file}: another process is converting this checkpoint, waiting", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()
