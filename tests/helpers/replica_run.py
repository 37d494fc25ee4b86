"""A run with replicas as a script does it: replica_run.py OUTPUT LOG COUNT ADDRESS [--resume].

Every answer is a line of the output; ADDRESS "" starts a cluster of this machine alone.
"""

import signal
import sys
from functools import partial
from pathlib import Path

from delay_engine import DelayEngine
from pydantic import BaseModel

from tuner.learn_to_ask.cli import run
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.job import JobSettings, open_job
from tuner.learn_to_ask.engines.replicas.nodes import JoinedCluster, facts_here
from tuner.learn_to_ask.engines.replicas.plan import plan_replicas
from tuner.learn_to_ask.engines.replicas.pool import ReplicaPool


class Answered(BaseModel):
    """A line of the output."""

    key: int
    text: str


def make_engine(address: str, log: Path) -> ReplicaPool:
    cluster = JoinedCluster(address or None, setting="--ray_address")
    plan = plan_replicas(
        cluster.nodes(), wanted=2, tensor_parallel_size=1, fitting=lambda gpus: gpus, flag="--replicas"
    )
    engine = partial(DelayEngine, seconds=0.2, slots=4, log=log)
    return ReplicaPool(engine, cluster=cluster, plan=plan, wanted=2, expected=facts_here(), description="delay:model")


def main() -> int:
    output, log, count, address, *resume = sys.argv[1:]
    settings = JobSettings(
        make_engine=partial(make_engine, address, Path(log)),
        max_retries=0,
        max_failures=0.0,
        resume=bool(resume),
        overwrite=False,
    )
    with open_job(Path(output), settings, depends_on={}) as job:
        requests = (
            Request(key, [{"role": "user", "content": f"message {key}"}])
            for key in range(int(count))
            if not job.journal.done(key)
        )
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=8)
        for answer in job.ask(requests, sampling=sampling, parse=lambda texts: texts[0]):
            job.journal.append(answer.key, Answered(key=answer.key, text=str(answer.value)))
        job.journal.finish(int(count))
    job.print_summary(f"answered: {output}", [], role="engine")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    run(main)
