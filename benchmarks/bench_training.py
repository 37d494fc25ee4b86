"""Steps a minute and memory of GRPO training with the published runner settings and with this recipe's.

All run the real main.py on the same data and base policy: a step of 8 tasks x 8 rollouts, and a fresh local engine
set up as the quickstart's, which samples 16 rollouts at a time. The published settings have 32 sequential runners for
each of 4 engines. Scaled to a machine they are 4 on 2 cores, two a core as 128 are on 64; scaled to the tasks of a
step, two for each as 32 are for 16, they are 16.

Example:
  make env env-engine
  python benchmarks/bench_training.py
"""

import argparse
import itertools
import os
import platform
import re
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from tuner.learn_to_ask.core.records import Task  # noqa: E402
from tuner.learn_to_ask.domains import default_domain  # noqa: E402
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl  # noqa: E402
from tuner.learn_to_ask.quickstart.base_policy import BasePolicyConfig, build_base_policy  # noqa: E402
from tuner.learn_to_ask.quickstart.pipeline import engine_command  # noqa: E402
from tuner.learn_to_ask.quickstart.policies import TOY_NUMBERS  # noqa: E402
from tuner.learn_to_ask.quickstart.processes import (  # noqa: E402
    child_process,
    free_port,
    run_to_end,
    wait_for_server,
)

RECIPE = ROOT / "tuner" / "learn_to_ask"
WARM_UP = 3  # steps in which the engine still compiles
TASKS, GROUP = 8, 8

_FINISHED = re.compile(r"(\d\d-\d\d \d\d:\d\d:\d\d) \[.*Training at step (\d+) finished")


@dataclass(frozen=True, slots=True)
class Setting:
    """How rollouts are spread over runners."""

    name: str
    concurrent_mode: str
    runners: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run took.

    Attributes:
        seconds: Of each step after the warm-up, from update to update.
        rollouts: Seconds in which the trainer waited for rollouts, a step.
        updates: Seconds of the update, a step.
        peak: Memory of all processes at the highest, in bytes; shared pages counted once.
        runners_peak: The same of the runners alone.
    """

    seconds: list[float]
    rollouts: float
    updates: float
    peak: int
    runners_peak: int


class MemoryWatch:
    """The highest memory of this process's descendants."""

    def __init__(self) -> None:
        self.peak = self.runners_peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks every ten seconds until the block ends: summing up shared pages takes a while itself."""
        self._thread.start()
        try:
            yield
        finally:
            self._done.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(10.0):
            total = runners = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    memory = process.memory_full_info().pss
                    name = " ".join(process.cmdline()[:1])
                except psutil.Error:
                    continue  # it ended meanwhile
                total += memory
                runners += memory if "WorkflowRunner" in name else 0
            self.peak = max(self.peak, total)
            self.runners_peak = max(self.runners_peak, runners)


def prepare(folder: Path, seed: int) -> None:
    """Makes the data and the base policy."""
    raw = folder / "processed.jsonl"
    scripts, env = RECIPE / "data_prepare", dict(os.environ)
    extract = [scripts / "1_info_extract_pipeline.py", "--engine=offline", "--input_file"]
    extract += [RECIPE / "sample_data" / "train_origin.jsonl", "--output_file", raw]
    build = [scripts / "2_build_dataset.py", "--input_file", raw, "--output_file", folder / "data" / "train.jsonl"]
    for command in (extract, build):
        run_to_end([sys.executable, *map(str, command)], log=folder / "prepare.log", env=env)
    tasks = list(read_jsonl(folder / "data" / "train.jsonl", Task, unique_key="cid", report=ReadReport()))
    build_base_policy(folder / "base_policy", tasks, default_domain(), BasePolicyConfig(), seed=seed)


def train(setting: Setting, folder: Path, engine_python: Path, steps: int) -> Measured:
    """Trains with one setting on a fresh engine."""
    place = folder / setting.name
    place.mkdir()
    config = yaml.safe_load((RECIPE / "quickstart" / "config.yaml").read_text())
    config["explorer"] |= {"concurrent_mode": setting.concurrent_mode, "runner_per_model": setting.runners}
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    base = folder / "base_policy"
    env = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TINKER_API_KEY": "tml-local",
        "TINKER_BASE_URL": f"http://127.0.0.1:{port}",
        "TRINITY_CHECKPOINT_ROOT_DIR": str(place),
        "LEARN2ASK_SEED": "0",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    engine = engine_command(engine_python, base, port=port, folder=place, flags=TOY_NUMBERS.engine_flags())
    command = [
        sys.executable,
        str(RECIPE / "main.py"),
        f"--config={place / 'config.yaml'}",
        f"--model_path={base}",
        f"--data={folder / 'data'}",
        "--grader=offline",
        f"--total_steps={steps}",
        f"--batch_size={TASKS}",
        f"--group_size={GROUP}",
        "--learning_rate=1e-9",  # the policy stays as it is, so that every setting has the same work
        "--max_model_len=512",
        "--max_tokens=48",
        "--inference_engine_num=1",
        "--save_interval_steps=1000",
    ]
    watch = MemoryWatch()
    with child_process(engine, log=place / "engine.log", env=env) as process:
        url = f"http://127.0.0.1:{port}/api/v1/get_server_capabilities"
        wait_for_server(process, url, log=place / "engine.log", timeout=180)
        with watch.watching():
            run_to_end(command, log=place / "train.log", env=env)
    log = (place / "train.log").read_text()
    seconds = durations(log)[WARM_UP - 1 :]
    updates = statistics.mean(float(value) for value in re.findall(r"time/train_step': ([0-9.]+)", log)[WARM_UP:])
    return Measured(seconds, statistics.mean(seconds) - updates, updates, watch.peak, watch.runners_peak)


def durations(log: str) -> list[float]:
    """Seconds from the end of each step's update to that of the next."""
    times = {int(step): datetime.strptime(time, "%m-%d %H:%M:%S") for time, step in _FINISHED.findall(log)}
    ends = [times[step] for step in sorted(times)]
    return [(after - before).total_seconds() for before, after in itertools.pairwise(ends)]


def main() -> None:
    """Measures every setting and prints them side by side; speed-ups are over the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="of each run, the first three uncounted")
    parser.add_argument("--sequential", type=int, nargs="*", default=[4, 16], help="numbers of runners to try")
    parser.add_argument("--asynchronous", type=int, nargs="*", default=[2, 4], help="numbers of runners to try")
    parser.add_argument("--engine_python", type=Path, default=ROOT / ".venv-engine" / "bin" / "python")
    arguments = parser.parse_args()
    settings = [Setting(f"sequential-{count}", "sequential", count) for count in arguments.sequential]
    settings += [Setting(f"asynchronous-{count}", "asynchronous", count) for count in arguments.asynchronous]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {TASKS} x {GROUP} rollouts"
    )
    print(f"{'setting':<16} {'steps/min':>9} {'speed-up':>8} {'rollouts (s)':>12} {'update (s)':>10} "
          f"{'memory (GiB)':>12} {'of it runners':>13}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), seed=0)
        first = 0.0
        for setting in settings:
            found = train(setting, Path(name), arguments.engine_python, arguments.steps)
            rate = 60 / statistics.mean(found.seconds)
            first = first or rate
            print(
                f"{setting.name:<16} {rate:>9.2f} {rate / first:>8.2f} {found.rollouts:>12.1f} {found.updates:>10.1f} "
                f"{found.peak / 2**30:>12.1f} {found.runners_peak / 2**30:>13.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
