"""How much faster steps A and 3 are than one request at a time, and how close to the ideal they come.

All runs of one call share a local server with latencies of 50 ms to 2 s (`latency_server.py`), made shorter by
`--scale`. Shorter latencies make it harder, as our own work per request stays the same. The loop is measured on
a part of the conversations and scaled up by the sum of latencies, which the server counts.

Example:
  python benchmarks/bench_openai.py
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from one_at_a_time import evaluate_one_at_a_time, extract_one_at_a_time, openai_chat  # noqa: E402

from tuner.learn_to_ask.core.records import Message, Sample, Session, Task  # noqa: E402
from tuner.learn_to_ask.core.segmentation import segment  # noqa: E402
from tuner.learn_to_ask.data_prepare.extract_info import extract_info  # noqa: E402
from tuner.learn_to_ask.engines.base import Sampling  # noqa: E402
from tuner.learn_to_ask.engines.job import JobSettings  # noqa: E402
from tuner.learn_to_ask.engines.openai_address import Endpoint  # noqa: E402
from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine  # noqa: E402
from tuner.learn_to_ask.evaluation.grade_rollouts import evaluate  # noqa: E402
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_SAMPLING, roll_out  # noqa: E402

ROUNDS = 5  # patient messages of a session with an answer to extract
REPEAT = 3  # rollouts of a task


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took, and the latencies that the server gave it."""

    seconds: float
    cpu_seconds: float
    requests: int
    latency: float
    most_running: int


class Server:
    """The latency server in a process of its own."""

    def __init__(self, scale: float) -> None:
        command = [sys.executable, str(Path(__file__).with_name("latency_server.py")), "--scale", str(scale)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def measure(self, run: Callable[[], object]) -> Run:
        """Times a run; its own output is not shown."""
        self._statistics()
        started, cpu_started = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            code = run()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        assert code == 0, f"the run ended with {code}"
        seen = self._statistics()
        return Run(seconds, cpu_seconds, seen["requests"], seen["latency"], seen["most_running"])

    def _statistics(self) -> dict[str, float]:
        with urllib.request.urlopen(self.base_url) as response:
            return json.load(response)


def sessions(count: int) -> Iterator[Session]:
    """Sessions of which every sample but the last has something to extract; no two are the same."""
    for case in range(count):
        messages: list[Message] = []
        for turn in range(ROUNDS + 1):
            messages.append({"role": "user", "content": f"i have been coughing for days, case {case}.{turn}"})
            messages.append({"role": "assistant", "content": f"does anything make it worse? {case}.{turn}"})
        yield Session(session_id=str(case), diagn="Acute Bronchitis", messages=messages)


def samples() -> Iterator[Sample]:
    """Endless samples with something to extract."""
    for session in sessions(sys.maxsize):
        yield from itertools.islice(segment(session), ROUNDS)


def tasks(count: int) -> Iterator[Task]:
    """Tasks to continue from."""
    for sample in itertools.islice(samples(), count):
        yield Task(**sample.model_dump(exclude={"info_set", "remaining_chat"}), info_truth="symptom: dry cough")


def step_a(server: Server, folder: Path, *, requests: int, concurrency: int) -> Run:
    """Times step A."""
    source = folder / "sessions.jsonl"
    with source.open("w") as file:
        file.writelines(session.model_dump_json() + "\n" for session in sessions(requests // ROUNDS))
    return server.measure(
        lambda: with_engine(
            server,
            concurrency,
            lambda engine: extract_info(
                input_file=source,
                output_file=folder / "samples.jsonl",
                settings=JobSettings(
                    make_engine=lambda: engine, max_retries=2, max_failures=0.0, resume=False, overwrite=True
                ),
                strict=True,
            ),
        )
    )


def step_3(server: Server, folder: Path, *, requests: int, concurrency: int) -> Run:
    """Times step 3, rollouts and grades."""
    source = folder / "tasks.jsonl"
    with source.open("w") as file:
        file.writelines(task.model_dump_json() + "\n" for task in tasks(requests // (1 + REPEAT)))
    engine = partial(make_engine, server, concurrency)
    roll, grade = step_3_parts(source, folder, make_policy=engine, make_grader=engine)
    return server.measure(lambda: roll() or grade())


def step_3_parts(
    source: Path, folder: Path, *, make_policy: Callable[[], OpenAIEngine], make_grader: Callable[[], OpenAIEngine]
) -> tuple[Callable[..., int], Callable[..., int]]:
    """Rollouts and grading, ready to run one after the other or together."""
    sampling = Sampling(
        temperature=ROLLOUT_SAMPLING.temperature, top_p=ROLLOUT_SAMPLING.top_p, max_tokens=512, n=REPEAT
    )
    job = partial(JobSettings, max_retries=2, max_failures=0.0, resume=False, overwrite=True)
    files = {"test_file": source, "rollout_file": folder / "rollouts.jsonl"}
    policy, grader = job(make_engine=make_policy), job(make_engine=make_grader)
    roll = partial(roll_out, **files, settings=policy, sampling=sampling, train_mode="Ra+Rs", strict=True)
    grade = partial(evaluate, **files, eval_file=folder / "eval.jsonl", settings=grader)
    return roll, grade


def make_engine(server: Server, concurrency: int) -> OpenAIEngine:
    """The engine to measure."""
    return OpenAIEngine(Endpoint(base_url=server.base_url, model="bench"), concurrency=concurrency)


def with_engine(server: Server, concurrency: int, run: Callable[[OpenAIEngine], int]) -> int:
    """Runs something with an engine and closes it."""
    engine = make_engine(server, concurrency)
    try:
        return run(engine)
    finally:
        engine.close()


def loop(server: Server, run: Callable[[], int]) -> Run:
    """Times a loop."""
    return server.measure(lambda: 0 if run() else 1)


def print_comparison(title: str, run: Run, one: Run, concurrency: int) -> None:
    """One line: how much faster than the loop scaled up to the same latencies, and the distance to the ideal."""
    loop_seconds = one.seconds / one.latency * run.latency
    speedup = loop_seconds / run.seconds
    ideal = run.latency / concurrency
    print(
        f"{title:<7} {concurrency:>4} {run.requests:>8,} {loop_seconds:>9.1f} {run.seconds:>8.1f} {speedup:>8.1f} "
        f"{speedup / concurrency:>8.3f} {ideal:>8.1f} {run.seconds / ideal - 1:>+8.1%} {run.most_running:>8.0f} "
        f"{run.cpu_seconds / run.requests * 1e3:>8.2f} {os.getloadavg()[0]:>6.1f}",
        flush=True,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.6, help="multiplies the latencies of 50 ms to 2 s")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32, 64], help="to compare")
    parser.add_argument("--rounds", type=int, default=40, help="requests for each place of the concurrency")
    parser.add_argument("--loop", type=int, default=40, help="conversations that the loop is measured on")
    parser.add_argument("--requests", type=int, default=10_000, help="requests of the long run, 0 for none")
    arguments = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "none")

    print(
        f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} before the start, Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}; latencies "
        f"{0.05 * arguments.scale:g} to {2 * arguments.scale:g} s"
    )
    with tempfile.TemporaryDirectory() as name, Server(arguments.scale) as server:
        folder = Path(name)
        chat = openai_chat(server.base_url, "bench")
        some = itertools.islice(samples(), arguments.loop)
        loop_a = loop(server, lambda: extract_one_at_a_time(some, chat, folder / "loop_a.jsonl"))
        few = tasks(arguments.loop // (1 + REPEAT))
        loop_3 = loop(server, lambda: evaluate_one_at_a_time(few, chat, folder / "loop_3.jsonl", repeat=REPEAT))
        print("                          one by one    ours           speedup /    ideal     over     most   CPU ms")
        print("        conc requests       (s)      (s)  speedup     conc      (s)    ideal  running  each    load")
        for concurrency in arguments.concurrency:
            requests = concurrency * arguments.rounds
            run = step_a(server, folder, requests=requests, concurrency=concurrency)
            print_comparison("step A", run, loop_a, concurrency)
            run = step_3(server, folder, requests=requests, concurrency=concurrency)
            print_comparison("step 3", run, loop_3, concurrency)
        if arguments.requests:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            concurrency = max(arguments.concurrency)
            run = step_a(server, folder, requests=arguments.requests, concurrency=concurrency)
            print_comparison("step A", run, loop_a, concurrency)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"peak memory {after / 1024:.0f} MiB, the long run added {(after - before) / 1024:.1f} MiB to it")


if __name__ == "__main__":
    main()
