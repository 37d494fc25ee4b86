"""What a pool of replicas costs its driver, and how much more several answer than one.

Runs on a Ray cluster of this machine alone whose GPUs do not exist; the engines wait instead of computing:

  python benchmarks/bench_replicas.py

The driver's cost is its processor time for each answer, flat out, with requests as long as step 3's and everything
that `generate` does; also how many answers a second came through. Then with engines that take a while for an answer,
where messages hold few.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]  # runs without being installed; the tests' engine

from delay_engine import DelayEngine  # noqa: E402
from fake_cluster import VARIABLES  # noqa: E402

from tuner.learn_to_ask.engines.base import Request, Sampling  # noqa: E402
from tuner.learn_to_ask.engines.replicas.nodes import JoinedCluster, facts_here  # noqa: E402
from tuner.learn_to_ask.engines.replicas.plan import plan_replicas  # noqa: E402
from tuner.learn_to_ask.engines.replicas.pool import ReplicaPool  # noqa: E402
from tuner.learn_to_ask.prompt import rollout_messages  # noqa: E402

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8)
TARGET_MS, TARGET_RATE, TARGET_SPEEDUP = 0.5, 2000, 3.6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--answers", type=int, default=40_000, help="of the flat-out run")
    parser.add_argument("--delayed", type=int, default=2000, help="answers of the run with one replica")
    parser.add_argument("--seconds", type=float, default=0.5, help="of an answer in the runs with a delay")
    parser.add_argument("--slots", type=int, default=64, help="answers of a replica at a time")
    parser.add_argument("--runs", type=int, default=3, help="of each; the best counts")
    arguments = parser.parse_args()
    os.environ.update(VARIABLES | {"RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": arguments.replicas})})
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}")

    runs = [run(arguments.replicas, 0.0, 256, arguments.answers) for _ in range(arguments.runs)]
    cost = min(processor / arguments.answers for _, processor in runs) * 1000
    rate = max(arguments.answers / clock for clock, _ in runs)
    report("driver flat out, ms of processor an answer", cost, TARGET_MS, at_least=False)
    report("answers/s by the clock, replicas on the same cores", rate, TARGET_RATE)
    alone = min(run(1, arguments.seconds, arguments.slots, arguments.delayed)[0] for _ in range(arguments.runs))
    answers = arguments.replicas * arguments.delayed
    delayed = [run(arguments.replicas, arguments.seconds, arguments.slots, answers) for _ in range(arguments.runs)]
    together = min(clock for clock, _ in delayed)
    cost = min(processor for _, processor in delayed) / answers * 1000
    report(f"driver at {answers / together:.0f} answers/s, ms of processor an answer", cost, TARGET_MS, at_least=False)
    ideal = arguments.delayed / arguments.slots * arguments.seconds
    print(f"one replica {alone:.2f} s, ideal {ideal:.2f} s; {arguments.replicas} with as much each {together:.2f} s")
    report(
        f"{arguments.replicas} over one, in answers a second",
        arguments.replicas * alone / together,
        TARGET_SPEEDUP * arguments.replicas / 4,
    )


def run(replicas: int, seconds: float, slots: int, answers: int) -> tuple[float, float]:
    """Seconds by the clock and of the driver's processor that a pool takes once it is started."""
    cluster = JoinedCluster("local", setting="--ray_address")
    plan = plan_replicas(
        cluster.nodes(), wanted=replicas, tensor_parallel_size=1, fitting=lambda gpus: gpus, flag="--replicas"
    )
    engine = partial(DelayEngine, seconds=seconds, slots=slots)
    pool = ReplicaPool(engine, cluster=cluster, plan=plan, wanted=replicas, expected=facts_here(), description="delay")
    try:
        list(pool.generate(conversations(200), SAMPLING))  # the first messages start threads and connections
        clock, processor = time.perf_counter(), time.process_time()
        count = sum(1 for _ in pool.generate(conversations(answers), SAMPLING))
        assert count == answers
        return time.perf_counter() - clock, time.process_time() - processor
    finally:
        pool.close()


def conversations(count: int) -> Iterator[Request]:
    """Requests as of step 3."""
    for key in range(count):
        yield Request(key, rollout_messages([{"role": "user", "content": f"My throat has hurt for {key} days"}], "Ra"))


def report(what: str, value: float, target: float, *, at_least: bool = True) -> None:
    """Prints a figure beside its target."""
    reached = value >= target if at_least else value < target
    print(f"{what}: {value:.3g} (target {'>=' if at_least else '<'} {target:g}: {'reached' if reached else 'MISSED'})")


if __name__ == "__main__":
    main()
