"""How much sooner step 3 is done when grading overlaps the rollouts than when it follows them.

Policy and grader are two endpoints with latencies of 50 ms to 2 s (`latency_server.py`), made shorter by `--scale`.
Both ways run in one call, in turn, on the same tasks.

Example:
  python benchmarks/bench_evaluate.py
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from bench_openai import REPEAT, Run, Server, make_engine, step_3_parts, tasks  # noqa: E402

from tuner.learn_to_ask.evaluation.overlap import run_both  # noqa: E402


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.6, help="multiplies the latencies of 50 ms to 2 s")
    parser.add_argument("--tasks", type=int, default=400, help="samples of the test set")
    parser.add_argument("--runs", type=int, default=3, help="of each way; the median counts")
    parser.add_argument(
        "--concurrency",
        nargs="+",
        default=["16:48", "32:32", "8:48"],
        help="requests at once at policy:grader; 3 gradings come of each request for rollouts",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    print(
        f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} before the start, Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}; {arguments.tasks} samples, "
        f"{REPEAT} rollouts each; latencies {0.05 * arguments.scale:g} to {2 * arguments.scale:g} s"
    )
    print("policy : grader   one after the other (s)   overlapped (s)   speed-up    load")
    with (
        tempfile.TemporaryDirectory() as name,
        Server.start(arguments.scale) as policy,
        Server.start(arguments.scale) as grader,
    ):
        folder = Path(name)
        source = folder / "tasks.jsonl"
        with source.open("w") as file:
            file.writelines(task.model_dump_json() + "\n" for task in tasks(arguments.tasks))
        for pair in arguments.concurrency:
            places = tuple(map(int, pair.split(":")))
            roll, grade = step_3_parts(
                source,
                folder,
                make_policy=partial(make_engine, policy, places[0]),
                make_grader=partial(make_engine, grader, places[1]),
            )

            def one_after_the_other(roll: Callable[..., int] = roll, grade: Callable[..., int] = grade) -> int:
                return roll() or grade()

            def overlapped(roll: Callable[..., int] = roll, grade: Callable[..., int] = grade) -> int:
                return max(run_both(roll, grade, policy_engine="openai", grader_engine="openai"))

            runs: dict[str, list[Run]] = {"after": [], "during": []}
            for _ in range(arguments.runs):
                runs["after"].append(policy.measure(one_after_the_other))
                runs["during"].append(policy.measure(overlapped))
            after, during = (statistics.median(run.seconds for run in some) for some in runs.values())
            print(
                f"{places[0]:>6} : {places[1]:<6}   {after:>23.1f}   {during:>14.1f}   {after / during:>8.2f}"
                f"   {os.getloadavg()[0]:>5.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
