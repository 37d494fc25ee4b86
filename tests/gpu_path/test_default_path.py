"""The published run on faked GPUs: config.yaml and the default flags but for sizes, killed and taken up again.

Real are Ray, the six vLLM engines, Trinity's explorer and trainer, verl's FSDP over two ranks, and the weight sync of
`sync_method: nccl` over a group of gloo. See cpu_settings.py and stand_ins/ for what a CPU forces.
"""

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cpu_settings import write_config
from fake_gpus import RECIPE, ROOT, Cluster, command, end_after_checkpoint, fake_gpus, run_main, tail
from rollouts import Rollout, evaluate, mean_difference, read_rollouts, recorded, scalars

from tuner.learn_to_ask.training.resume import last_checkpoint

STEPS, KILLED_AFTER, GROUP, BATCH = 4, 2, 4, 4


@dataclass(frozen=True)
class Run:
    """A run that was killed with -9 after its checkpoint of step 2, and started again."""

    job: Path
    cluster: Cluster
    code: int
    first_log: Path
    second_log: Path
    before: list[Rollout]
    after: list[Rollout]
    reached_at_kill: int


@pytest.fixture(scope="module")
def run(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("default")
    record = folder / "rollouts.jsonl"
    config = write_config(RECIPE / "config.yaml", folder / "config.yaml", name="default", **recorded(record))
    job = folder / "checkpoints" / "Learn2Ask" / "default"
    arguments = command(models, config, f"--total_steps={STEPS}")
    with fake_gpus(folder, 8) as cluster:
        end_after_checkpoint(arguments, job, KILLED_AFTER, env=cluster.env, log=folder / "first.log")
        reached, before = last_checkpoint(job), read_rollouts(record)
        code = run_main(arguments, env=cluster.env, log=folder / "second.log")
        after = read_rollouts(record, skip=len(before))
        yield Run(job, cluster, code, folder / "first.log", folder / "second.log", before, after, reached)


def test_the_killed_run_goes_on_from_its_checkpoint_and_reaches_the_last_step(run):
    assert run.code == 0, tail(run.second_log)
    said = run.second_log.read_text()
    assert f"going on from the checkpoint of step {run.reached_at_kill} of {STEPS}" in said
    assert f"{STEPS} of {STEPS}" in said
    assert "Error in Trainer" not in said  # the end of the data is no error
    assert last_checkpoint(run.job) == STEPS


def test_four_engines_roll_out_two_gpus_grade_and_two_train(run):
    said = run.first_log.read_text()

    assert re.search(r"policy +4 +4 engines x 1 GPUs", said)
    assert re.search(r"grader +2 +1 engines x 2 GPUs", said)
    assert re.search(r"trainer +2", said)
    shards = sorted(file.name for file in (run.job / f"global_step_{STEPS}" / "actor").glob("model_*.pt"))
    assert shards == [f"model_world_size_2_rank_{rank}.pt" for rank in range(2)]


def test_every_step_rolls_out_with_the_weights_of_the_step_before(run):
    rollouts = [*(r for r in run.before if r.step <= run.reached_at_kill), *run.after]

    assert {(r.step, r.version) for r in rollouts} == {(step, step - 1) for step in range(1, STEPS + 1)}
    for step in range(1, STEPS + 1):
        assert sum(r.step == step for r in rollouts) == BATCH * GROUP


def test_no_task_is_left_out_or_trained_on_twice(run):
    rollouts = [*(r for r in run.before if r.step <= run.reached_at_kill), *run.after]
    staged = [json.loads(line) for line in next((run.job / "taskset").glob("*.jsonl")).read_text().splitlines()]

    prompts = [[r.prompt for r in rollouts if r.step == step] for step in range(1, STEPS + 1)]

    assert [len(set(of_step)) for of_step in prompts] == [BATCH] * STEPS
    texts = {json.dumps(task["messages"]) for task in staged[: BATCH * STEPS]}
    assert len(set().union(*prompts)) == len(texts)


def test_the_engines_have_the_weights_of_the_trainer_after_a_sync(run, models):
    """Given the shards of a checkpoint, when the engines roll out next, then their log-probabilities are its own."""
    step = STEPS - 1
    actor = run.job / f"global_step_{step}" / "actor"
    rollouts = [r for r in run.after if r.version == step][:8]
    found = evaluate(
        run.job / f"global_step_{step}", small_test_file(models, run), fresh(run, "shards"), env=run.cluster.env
    )
    assert found.returncode == 0, found.stderr[-3000:]

    synced = mean_difference(actor / "huggingface_converted", rollouts)
    base = mean_difference(models / "policy", rollouts)

    # bfloat16 on both sides leaves about 0.01; three updates with a learning rate of 1e-3 move much further
    assert synced < 0.05, (synced, base)
    assert base > 3 * synced, (synced, base)


def test_the_judges_prompts_reach_the_auxiliary_engine_with_its_own_temperature(run):
    requests = re.findall(r"Received request.*?temperature=([0-9.]+)", run.second_log.read_text())

    assert "0.7" in requests, f"temperatures seen: {sorted(set(requests))}"
    assert any(math.isfinite(r.reward) and r.reward > 0 for r in run.after)
    assert scalars(run.job, "rollout/grader_failures/mean")[STEPS] < 1


def test_script_3_and_the_report_take_the_runs_folder_as_it_is(run, models):
    folder = fresh(run, "evaluation")

    found = evaluate(run.job, small_test_file(models, run), folder, env=run.cluster.env)

    assert found.returncode == 0, found.stderr[-3000:]
    assert f"step {STEPS}" in found.stdout + found.stderr
    report = [sys.executable, "-m", "tuner.learn_to_ask.report", str(folder / "eval.jsonl"), f"--output_dir={folder}"]
    assert subprocess.run(report, env=run.cluster.env, cwd=ROOT, check=False, timeout=120).returncode == 0
    assert (folder / "report.md").exists()


def fresh(run: Run, name: str) -> Path:
    folder = run.cluster.folder / name
    folder.mkdir()
    return folder


def small_test_file(models: Path, run: Run) -> Path:
    lines = (models / "data" / "test.jsonl").read_text().splitlines(keepends=True)[:8]
    file = run.cluster.folder / "test.jsonl"
    file.write_text("".join(lines))
    return file
