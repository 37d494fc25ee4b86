"""How much faster steps A and 3 are than one request at a time, and how close to the ideal they come.

All runs of one call share a local server with latencies of 50 ms to 2 s (`latency_server.py`), made shorter by
`--scale`. Shorter latencies make it harder, as our own work per request stays the same. The loop is measured on
a part of the conversations and scaled up by the sum of latencies, which the server counts. Every other figure comes
from a process of its own that has made 20 requests before, so that no import counts. `--former` measures another
checkout beside this one, in turn. At the end two servers of one model are measured against one, with the same
concurrency at each and as many requests for each.

Examples:
  python benchmarks/bench_openai.py
  git worktree add /tmp/former 9fd0341 && python benchmarks/bench_openai.py --former /tmp/former
"""

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

CHECKOUT = "LEARN2ASK_BENCH_CHECKOUT"  # set for the process that measures `--former`
ROOT = Path(os.environ.get(CHECKOUT) or Path(__file__).resolve().parents[1])
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from one_at_a_time import evaluate_one_at_a_time, extract_one_at_a_time, openai_chat  # noqa: E402

from tuner.learn_to_ask.core.records import Message, Sample, Session, Task  # noqa: E402
from tuner.learn_to_ask.core.segmentation import segment  # noqa: E402
from tuner.learn_to_ask.data_prepare.extract_info import extract_info  # noqa: E402
from tuner.learn_to_ask.domains import default_domain  # noqa: E402
from tuner.learn_to_ask.engines.base import Sampling  # noqa: E402
from tuner.learn_to_ask.engines.job import JobSettings  # noqa: E402
from tuner.learn_to_ask.evaluation.grade_rollouts import evaluate  # noqa: E402
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_SAMPLING, roll_out  # noqa: E402

ROUNDS = 5  # patient messages of a session with an answer to extract
REPEAT = 3  # rollouts of a task
WARM_UP = 20  # requests before a measurement, so that it holds no imports


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took, and the latencies that the server gave it."""

    seconds: float
    cpu_seconds: float
    requests: int
    latency: float
    most_running: int
    peak_mib: float


class Server:
    """A running latency server, or several: then their addresses are separated by spaces."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    @classmethod
    @contextlib.contextmanager
    def start(cls, scale: float) -> "Iterator[Server]":
        """Starts one in a process of its own, and ends it."""
        command = [sys.executable, str(Path(__file__).with_name("latency_server.py")), "--scale", str(scale)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield cls(process.stdout.readline().strip())
            finally:
                process.kill()

    def measure(self, run: Callable[[], object]) -> Run:
        """Times a run; its own output is not shown."""
        self._statistics()
        started, cpu_started = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            code = run()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        assert code == 0, f"the run ended with {code}"
        seen = self._statistics()
        # Linux's own count: what `getrusage` tells a new process is its parent's.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return Run(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            requests=int(seen["requests"]),
            latency=seen["latency"],
            most_running=int(seen["most_running"]),
            peak_mib=int(peak.split()[1]) / 1024,
        )

    def _statistics(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for base_url in self.base_url.split():
            with urllib.request.urlopen(base_url) as response:
                for name, value in json.load(response).items():
                    sums[name] = sums.get(name, 0) + value
        return sums


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
                domain=default_domain(),
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
    source: Path, folder: Path, *, make_policy: Callable[[], Any], make_grader: Callable[[], Any]
) -> tuple[Callable[..., int], Callable[..., int]]:
    """Rollouts and grading, ready to run one after the other or together."""
    sampling = Sampling(
        temperature=ROLLOUT_SAMPLING.temperature, top_p=ROLLOUT_SAMPLING.top_p, max_tokens=512, n=REPEAT
    )
    job = partial(JobSettings, max_retries=2, max_failures=0.0, resume=False, overwrite=True)
    files = {"test_file": source, "rollout_file": folder / "rollouts.jsonl"}
    policy, grader = job(make_engine=make_policy), job(make_engine=make_grader)
    roll = partial(
        roll_out, **files, domain=default_domain(), settings=policy, sampling=sampling, train_mode="Ra+Rs", strict=True
    )
    grade = partial(evaluate, **files, eval_file=folder / "eval.jsonl", domain=default_domain(), settings=grader)
    return roll, grade


def make_engine(server: Server, concurrency: int) -> Any:
    """The engine to measure; the former client, on httpx, lay in another module and took other arguments."""
    if importlib.util.find_spec("tuner.learn_to_ask.engines.openai_engine") is None:
        former: Any = importlib.import_module("tuner.learn_to_ask.engines.openai_api")
        return former.OpenAIEngine(base_url=server.base_url, model="bench", concurrency=concurrency)
    from tuner.learn_to_ask.engines.openai_address import Endpoint
    from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine

    return OpenAIEngine(Endpoint(base_url=server.base_url, model="bench"), concurrency=concurrency)


def with_engine(server: Server, concurrency: int, run: Callable[[Any], int]) -> int:
    """Runs something with an engine and closes it."""
    engine = make_engine(server, concurrency)
    try:
        return run(engine)
    finally:
        engine.close()


def loop(server: Server, run: Callable[[], int]) -> Run:
    """Times a loop."""
    return server.measure(lambda: 0 if run() else 1)


def measure_apart(server: Server, checkout: Path, step: str, *, requests: int, concurrency: int) -> Run:
    """One run in a process of its own, with the code of a checkout."""
    command = [sys.executable, __file__, "--measure", step, str(requests), str(concurrency), server.base_url]
    done = subprocess.run(
        command, env={**os.environ, CHECKOUT: str(checkout)}, stdout=subprocess.PIPE, text=True, check=True
    )
    return Run(**json.loads(done.stdout))


def measure_here(step: str, requests: str, concurrency: str, base_url: str) -> None:
    """What that process does: measures and prints the run as JSON."""
    server, measured = Server(base_url), STEPS[step]
    with tempfile.TemporaryDirectory() as name:
        measured(server, Path(name), requests=WARM_UP, concurrency=WARM_UP)
        run = measured(server, Path(name), requests=int(requests), concurrency=int(concurrency))
    print(json.dumps(asdict(run)))


STEPS = {"A": step_a, "3": step_3}


def print_comparison(title: str, run: Run, one: Run, concurrency: int) -> None:
    """One line: how much faster than the loop scaled up to the same latencies, and the distance to the ideal."""
    loop_seconds = one.seconds / one.latency * run.latency
    speedup = loop_seconds / run.seconds
    ideal = run.latency / concurrency
    print(
        f"{title:<9} {concurrency:>4} {run.requests:>8,} {loop_seconds:>9.1f} {run.seconds:>8.1f} {speedup:>8.1f} "
        f"{speedup / concurrency:>8.3f} {ideal:>8.1f} {run.seconds / ideal - 1:>+8.1%} {run.most_running:>8.0f} "
        f"{run.cpu_seconds / run.requests * 1e3:>8.2f} {run.peak_mib:>5.0f} {os.getloadavg()[0]:>5.1f}",
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
    parser.add_argument("--former", type=Path, help="a checkout to measure beside this one")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    if arguments.measure:
        measure_here(*arguments.measure)
        return

    print(
        f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} before the start, Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}; latencies "
        f"{0.05 * arguments.scale:g} to {2 * arguments.scale:g} s"
    )
    checkouts = {"ours": ROOT} if arguments.former is None else {"former": arguments.former, "ours": ROOT}
    with tempfile.TemporaryDirectory() as name, Server.start(arguments.scale) as server:
        folder = Path(name)
        chat = openai_chat(server.base_url, "bench")
        some = itertools.islice(samples(), arguments.loop)
        few = tasks(arguments.loop // (1 + REPEAT))
        loops = {
            "A": loop(server, lambda: extract_one_at_a_time(some, chat, folder / "loop_a.jsonl")),
            "3": loop(server, lambda: evaluate_one_at_a_time(few, chat, folder / "loop_3.jsonl", repeat=REPEAT)),
        }
        runs = [(step, size, size * arguments.rounds) for size in arguments.concurrency for step in STEPS]
        if arguments.requests:
            runs.append(("A", max(arguments.concurrency), arguments.requests))
        print("                           one by one      run          speedup /    ideal     over     most   CPU ms")
        print(
            "step       conc requests       (s)      (s)  speedup     conc      (s)    ideal  running  each   MiB  load"
        )
        for step, concurrency, requests in runs:
            for title, checkout in checkouts.items():
                run = measure_apart(server, checkout, step, requests=requests, concurrency=concurrency)
                print_comparison(f"{step} {title}", run, loops[step], concurrency)
        with Server.start(arguments.scale) as second:
            both = Server(f"{server.base_url} {second.base_url}")
            compare_servers(server, both, concurrencies=arguments.concurrency, rounds=arguments.rounds)


def compare_servers(one: Server, two: Server, *, concurrencies: list[int], rounds: int) -> None:
    """Prints how many times the requests of one server two answer in the same time, in step A."""
    print("           one server       two servers")
    print("conc each requests   (s)  requests   (s)  times  CPU ms each  load")
    for concurrency in concurrencies:
        count = concurrency * rounds
        single = measure_apart(one, ROOT, "A", requests=count, concurrency=concurrency)
        double = measure_apart(two, ROOT, "A", requests=2 * count, concurrency=concurrency)
        times = (double.requests / double.seconds) / (single.requests / single.seconds)
        each = double.cpu_seconds / double.requests * 1e3
        print(
            f"{concurrency:>9} {single.requests:>8,} {single.seconds:>5.1f} {double.requests:>9,} "
            f"{double.seconds:>5.1f} {times:>6.2f} {each:>12.2f} {os.getloadavg()[0]:>5.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
