"""Segmentation in sessions a second, and what steps A and B cost a sample without an engine.

python benchmarks/bench_data.py
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.data_prepare.build_dataset import build_dataset
from tuner.learn_to_ask.data_prepare.extract_info import extract_info
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl

SAMPLE = Path(__file__).resolve().parents[1] / "tuner" / "learn_to_ask" / "sample_data" / "train_origin.jsonl"
SESSIONS = 20_000


def main() -> None:
    """Measures and prints."""
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {SESSIONS:,} sessions")
    with tempfile.TemporaryDirectory() as folder:
        logs, samples, tasks = (Path(folder) / name for name in ("logs.jsonl", "samples.jsonl", "tasks.jsonl"))
        write_sessions(logs)
        sessions = list(read_jsonl(logs, Session, unique_key="session_id", report=ReadReport()))
        seconds = best_of(3, lambda: sum(1 for session in sessions for _ in segment(session)))
        print(f"segmentation alone            {SESSIONS / seconds:>10,.0f} sessions/s")
        seconds = best_of(3, lambda: read_and_segment(logs))
        print(f"reading, checking, segmenting {SESSIONS / seconds:>10,.0f} sessions/s")
        count = read_and_segment(logs)
        with redirect_stdout(StringIO()):
            seconds = best_of(1, lambda: step_a(logs, samples))
        print(f"step A, engine apart          {seconds / count * 1000:>10.3f} ms a sample")
        with redirect_stdout(StringIO()):
            seconds = best_of(
                1,
                lambda: build_dataset(
                    input_file=samples, output_file=tasks, domain=default_domain(), strict=True, overwrite=True
                ),
            )
        print(f"step B                        {seconds / count * 1000:>10.3f} ms a sample")


def write_sessions(path: Path) -> None:
    """The sample sessions over and over, under new ids."""
    lines = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for number in range(SESSIONS):
            file.write(json.dumps({**lines[number % len(lines)], "session_id": number}) + "\n")


def read_and_segment(logs: Path) -> int:
    """Number of samples."""
    sessions = read_jsonl(logs, Session, unique_key="session_id", report=ReadReport())
    return sum(1 for session in sessions for _ in segment(session))


def step_a(logs: Path, samples: Path) -> None:
    """Step A with an engine that answers at once."""
    extract_info(
        input_file=logs,
        output_file=samples,
        settings=JobSettings(
            make_engine=lambda: OfflineEngine(no_information),
            max_retries=0,
            max_failures=0.0,
            resume=False,
            overwrite=True,
        ),
        domain=default_domain(),
        strict=True,
    )


def no_information(messages: list[dict[str, str]]) -> str:
    """An extractor that finds one thing."""
    return '["symptom: cough"]'


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the quickest run."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
