"""A runner that is killed costs its task nothing but time: real Ray actors, killed between two tasks and within one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import asyncio, os, sys
from types import SimpleNamespace
import ray
from trinity.explorer.scheduler import RunnerWrapper, TaskWrapper
from trinity.common.config import Config
from trinity.common.workflows.workflow import Task
from trinity.explorer.workflow_runner import Status
from tuner.learn_to_ask.training.trinity_actors import LastingRunner

ray.init(address="local", num_cpus=1, logging_level="ERROR", log_to_driver=False, include_dashboard=False)

@ray.remote(num_cpus=0)
class Runner:
    async def prepare(self): pass
    async def pid(self): return os.getpid()
    async def run_task(self, task, batch_id, repeat_times, run_id_base):
        if not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w").close()
            os.kill(os.getpid(), 9)
        return Status(ok=True, metrics=[]), [f"rollout {n} of {batch_id}" for n in range(repeat_times)]

def runner_of(kind):
    class Small(kind):
        def _create_runner(self):
            return Runner.remote()
    config = Config()
    config.explorer.max_retry_times = 1
    return Small(0, None, [], config)

async def main(kind):
    runner = runner_of(kind)
    task = TaskWrapper(task=Task(workflow=None), batch_id=1)
    ask = lambda: runner.run_with_retry(task, repeat_times=2, run_id_base=0, timeout=60)
    for when in ("within a task", "between two"):
        try:
            status, rollouts, _, _ = await ask()
            print(when, status.ok, rollouts)
        except ray.exceptions.RayActorError as error:
            print(when, "lost")
        else:
            if status.ok:
                os.kill(await runner.runner.pid.remote(), 9)
                while True:
                    try:
                        await runner.runner.pid.remote()
                    except ray.exceptions.RayActorError:
                        break

asyncio.run(main(LastingRunner if sys.argv[2] == "ours" else RunnerWrapper))
"""


def run(kind, folder):
    command = [sys.executable, "-c", RUN.replace("sys.argv[1]", repr(str(folder / "killed"))), "", kind]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    # Ray has something to say on stdout as well.
    said = [line for line in done.stdout.splitlines() if line.startswith(("within", "between"))]
    return said, done.stderr[-2000:]


@pytest.mark.slow
def test_a_task_whose_runner_is_killed_is_run_by_a_new_one(tmp_path):
    said, errors = run("ours", tmp_path)
    rollouts = "['rollout 0 of 1', 'rollout 1 of 1']"
    assert said == [f"within a task True {rollouts}", f"between two True {rollouts}"], errors


@pytest.mark.slow
def test_trinitys_own_runner_loses_it_which_is_why_ours_exists(tmp_path):
    said, errors = run("trinitys", tmp_path)
    assert said == ["within a task False []", "between two lost"], errors
