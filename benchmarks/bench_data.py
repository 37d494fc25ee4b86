"""Segmentation in sessions a second, what steps A and B cost a sample without an engine, and what a big file takes.

python benchmarks/bench_data.py
python benchmarks/bench_data.py --sessions 1000000   # as a user runs it, once, stopped half-way and resumed
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tuner.learn_to_ask.core.labels import decision_truth
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.data_prepare.build_dataset import build_dataset
from tuner.learn_to_ask.data_prepare.extract_info import extract_info
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, write_jsonl

SAMPLE = Path(__file__).resolve().parents[1] / "tuner" / "learn_to_ask" / "sample_data" / "train_origin.jsonl"
SESSIONS = 20_000
ResultT = TypeVar("ResultT")


def main() -> None:
    """Measures one or the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, help="measure memory, time and sizes with so many, through both steps")
    parser.add_argument("--ending", default=".jsonl", help="of the files: .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
    parser.add_argument("--folder", help="for the files, which are removed (default: the system's for such)")
    arguments = parser.parse_args()
    if arguments.sessions:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measure_big(Path(folder), arguments.sessions, arguments.ending)
    else:
        measure_samples()


def measure_big(folder: Path, sessions: int, ending: str) -> None:
    """Steps A and B over many sessions, each in a process of its own."""
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {load:.1f}")
    logs, samples, tasks = (folder / f"{name}{ending}" for name in ("logs", "samples", "tasks"))
    print(f"{sessions:,} sessions{' ' * 33}seconds  of the processor  peak memory", flush=True)
    alone("writing them", partial(write_sessions, logs, sessions))
    print(f"  {logs.name} {size(logs)}")
    asked_half = futures_in(SAMPLE) * sessions // len(SAMPLE.read_bytes().splitlines()) // 2
    alone("step A, stopped half-way", partial(step_a, logs, samples, stop_after=asked_half))
    print(f"  {samples.name}.journal {size(samples.with_name(f'{samples.name}.journal'))}")
    seconds, processor = alone("step A, resumed, to its end", partial(step_a, logs, samples, resume=True))
    print(f"  found its place after {seconds:.1f} s, {processor:.1f} of the processor; {samples.name} {size(samples)}")
    alone("step B", partial(step_b, samples, tasks))
    print(f"  {tasks.name} {size(tasks)}")


def alone(title: str, work: Callable[[], ResultT]) -> ResultT:
    """Runs something in a process of its own, prints what it took, and gives back what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result, seconds, processor, peak = pool.submit(measured, work).result()
    print(f"  {title:<44} {seconds:>9.1f} {processor:>15.1f} {peak:>11.0f} MiB", flush=True)
    return result


def measured(work: Callable[[], ResultT]) -> tuple[ResultT, float, float, float]:
    """What it returns, seconds by the clock and of the processor, and the most memory of this process in MiB."""
    started = time.perf_counter()
    with redirect_stdout(StringIO()):
        result = work()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return result, time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def size(path: Path) -> str:
    """Of a file, for reading."""
    return f"{path.stat().st_size / 1e6:,.0f} MB"


def measure_samples() -> None:
    """What a sample costs."""
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {SESSIONS:,} sessions")
    with tempfile.TemporaryDirectory() as folder:
        logs, samples, tasks = (Path(folder) / name for name in ("logs.jsonl", "samples.jsonl", "tasks.jsonl"))
        write_sessions(logs, SESSIONS)
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
            seconds = best_of(1, lambda: step_b(samples, tasks))
        print(f"step B                        {seconds / count * 1000:>10.3f} ms a sample")


def write_sessions(path: Path, sessions: int) -> int:
    """The sample sessions over and over, under new ids."""
    lines = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    numbered = ({**lines[number % len(lines)], "session_id": str(number)} for number in range(sessions))
    return write_jsonl(path, numbered, Session)


def read_and_segment(logs: Path) -> int:
    """Number of samples."""
    sessions = read_jsonl(logs, Session, unique_key="session_id", report=ReadReport())
    return sum(1 for session in sessions for _ in segment(session))


def futures_in(logs: Path) -> int:
    """How many samples an engine is asked about."""
    sessions = read_jsonl(logs, Session, unique_key="session_id", report=ReadReport())
    return sum(decision_truth(one.remaining_chat) != "stop" for session in sessions for one in segment(session))


def step_a(logs: Path, samples: Path, *, stop_after: int = 0, resume: bool = False) -> tuple[float, float]:
    """Step A with an engine that answers at once.

    Args:
        logs: Sessions.
        samples: The output.
        stop_after: How many answers; 0 for all.
        resume: Continues.

    Returns:
        After how many seconds the engine was asked for the first time, by the clock and of the processor.
    """
    started, before, first = time.perf_counter(), time.process_time(), (0.0, 0.0)
    asked = count(1)

    def one_thing(messages: list[dict[str, str]]) -> str:
        nonlocal first
        number = next(asked)
        if number == 1:
            first = time.perf_counter() - started, time.process_time() - before
        if number == stop_after:
            raise KeyboardInterrupt
        return '["symptom: cough"]'

    settings = JobSettings(
        make_engine=lambda: OfflineEngine(one_thing),
        max_retries=0,
        max_failures=0.0,
        resume=resume,
        overwrite=not resume,
    )
    try:
        extract_info(input_file=logs, output_file=samples, settings=settings, domain=default_domain(), strict=True)
    except KeyboardInterrupt:
        assert stop_after
    return first


def step_b(samples: Path, tasks: Path) -> int:
    """Step B."""
    return build_dataset(input_file=samples, output_file=tasks, domain=default_domain(), strict=True, overwrite=True)


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
