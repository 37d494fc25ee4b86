"""Says what the quickstart does, how long it took, and how the reward rises meanwhile."""

import ast
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = re.compile(r"Trainer.*Step (\d+): (\{.*\})")


class Stages:
    """Says what runs, and how long it took."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Announces a stage and its duration."""
        self._number += 1
        print(f"[{self._number}/{self._total}] {title} ...", flush=True)
        started = time.monotonic()
        yield
        print(f"      done in {time.monotonic() - started:.0f} s", flush=True)


class RewardCurve:
    """Follows the mean reward of the training steps in the log of main.py."""

    def __init__(self, log: Path, steps: int) -> None:
        self.rewards: dict[int, float] = {}
        self._log = log
        self._steps = steps
        self._read = 0

    def follow(self) -> None:
        """Prints the steps that have come since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        complete = data.rfind(b"\n") + 1
        self._read += complete
        for line in data[:complete].decode(errors="replace").splitlines():
            match = _STEP.search(line)
            reward = ast.literal_eval(match[2]).get("critic/rewards/mean") if match else None
            if match and reward is not None:
                self.rewards[int(match[1])] = reward
                print(f"      step {match[1]} of {self._steps}: mean reward {reward:.3f}", flush=True)
