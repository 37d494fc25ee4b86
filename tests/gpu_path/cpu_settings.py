"""What a CPU forces on a config file of the project, each with its reason; everything else is as it stands."""

from pathlib import Path
from typing import Any

import yaml

CPU = {
    # a runner is a process that imports the whole stack: 4 of them instead of 64, on two cores
    "explorer.runner_per_model": 1,
    # torch.compile would call a C++ compiler for minutes in every engine
    "explorer.rollout_model": {"enforce_eager": True},
    "explorer.auxiliary_models": [{"enforce_eager": True, "enable_log_requests": True}],  # the log shows the sampling
    # four steps instead of 90 and 10 between two checkpoints and two syncs
    "synchronizer.sync_interval": 1,
    # a test fails after five minutes instead of two hours
    "synchronizer.sync_timeout": 300,
}


def write_config(source: Path, target: Path, *, name: str, **changes: Any) -> Path:
    """Writes a config of the project with what the CPU forces and what a test changes.

    Args:
        source: A config file of the project.
        target: The file to write.
        name: Of the run.
        changes: Dotted keys, with `__` for the dots, and their values; `None` leaves a key out.
    """
    config = yaml.safe_load(source.read_text(encoding="utf-8"))
    config["name"] = name
    for key, value in {**CPU, **{key.replace("__", "."): value for key, value in changes.items()}}.items():
        *parents, last = key.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place.pop(last, None)
        if value is not None:
            place[last] = value
    target.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return target
