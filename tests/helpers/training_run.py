"""A training run as another process, killed after three steps and taken up through an outage of the service."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


RECIPE = ROOT / "tuner" / "learn_to_ask"


ENGINE_PYTHON = ROOT / ".venv-engine" / "bin" / "python"


def run(command, *, env, timeout=600):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=env,
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@dataclass
class Training:
    """Two parts of one run of main.py: killed after a checkpoint, then gone on with through an outage.

    Attributes:
        job: The run's folder.
        ray: Ray's own folder, session dumps and logs included.
        place: The explorer's state as the kill left it.
        outputs: What each part printed.
        refused: Connections to the Tinker service that failed during the outage.
        left_out: Rollouts whose grade was prose.
    """

    job: Path
    ray: Path
    place: dict
    outputs: list[str]
    refused: int
    left_out: int


GRADER_KEY = "sk-secret-of-this-test"


OUTAGE_SECONDS = 60


def wait_for_line(log, process, line, *, timeout=420):
    """Waits until a process has written a line, or fails with what it wrote instead."""
    end = time.monotonic() + timeout
    while line not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text()[-5000:]
        assert time.monotonic() < end, f"no {line!r} in {timeout} s:\n{log.read_text()[-5000:]}"
        time.sleep(0.2)


def wait_until_ahead(job, process, step, *, timeout=120):
    """Waits until the explorer has noted that it is beyond a step, which it does soon after the trainer's next."""
    end = time.monotonic() + timeout
    while _explorer_step(job) <= step:
        assert process.poll() is None and time.monotonic() < end, f"the explorer did not get beyond step {step}"
        time.sleep(0.1)


def _explorer_step(job):
    try:
        return json.loads((job / "explorer_meta.json").read_text())["latest_iteration"]
    except ValueError:  # it is just being written
        return 0
