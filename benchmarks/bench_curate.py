"""Seconds and memory of curating and splitting synthetic sessions.

python benchmarks/bench_curate.py
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tuner.learn_to_ask.jsonl import write_jsonl
from tuner.learn_to_ask.sample_data.generate import generate_sessions

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "curate": ("curate", "logs.jsonl", "curated.jsonl", "--report", "curate.html", "--overwrite"),
    "curate, personal data apart": ("curate", "logs.jsonl", "curated.jsonl", "--personal_data", "off", "--overwrite"),
    "split": ("split", "curated.jsonl", "--train", "train.jsonl", "--test", "test.jsonl", "--overwrite"),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1_000, 100_000])
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]}")
    print("sessions  command                      seconds  processor seconds  peak MiB", flush=True)
    for sessions in arguments.sessions:
        with tempfile.TemporaryDirectory() as name:
            write_jsonl(Path(name) / "logs.jsonl", generate_sessions(count=sessions, first_id=1, seed=7))
            for title, command in COMMANDS.items():
                seconds, processor, memory = measure(command, Path(name))
                print(f"{sessions:8,}  {title:27}  {seconds:7.1f}  {processor:17.1f}  {memory:8.0f}", flush=True)


def measure(command: tuple[str, ...], folder: Path) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and peak memory in MiB, of the real command."""
    module, *flags = command
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", f"tuner.learn_to_ask.data_prepare.{module}", *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{module} exited with {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
