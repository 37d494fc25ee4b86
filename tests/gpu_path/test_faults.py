"""What stops a run, and what comes of it: each fault on the executed path, with one engine and one trainer."""

import os
import signal
import subprocess
from contextlib import contextmanager

import pytest
from cpu_settings import write_config
from fake_gpus import (
    RECIPE,
    base_environment,
    command,
    end_after_checkpoint,
    ended_with_all_children,
    fake_gpus,
    run_main,
    tail,
)
from rollouts import read_rollouts, recorded, scalars

from tuner.learn_to_ask.training.resume import last_checkpoint

pytestmark = pytest.mark.long
SMALL = ("--grader=offline", "--inference_engine_num=1")


def test_with_no_ray_running_the_command_starts_its_own_and_sigterm_ends_it_with_a_summary(models, tmp_path):
    """Given another cluster on this machine and no word of which to use, then a run starts one and all find it.

    When it is told to end, it says how far it came and what to do, and leaves nothing running.
    """
    config = write_config(RECIPE / "config.yaml", tmp_path / "config.yaml", name="own")
    job = tmp_path / "checkpoints" / "Learn2Ask" / "own"
    other = tmp_path / "other"
    other.mkdir()
    log = tmp_path / "log"
    with fake_gpus(other, 2), ended_with_all_children():
        env = base_environment(tmp_path) | {"FAKE_GPUS": "2"}
        arguments = command(models, config, *SMALL, "--total_steps=3")
        code = end_after_checkpoint(arguments, job, 1, env=env, log=log, how=signal.SIGTERM)
        reached = last_checkpoint(job)

    said = log.read_text(errors="replace")
    assert code == 143, tail(log)
    assert "a cluster of its own will be started, none is running" in said
    assert f"steps    {reached} of 3" in said
    assert f"terminated; start again to go on from step {reached}" in said


def test_a_step_that_fails_does_not_count_and_is_made_up_for(models, tmp_path):
    """Given an update that fails in step 2, then the run ends with 1 at step 1, and the next start trains step 2."""
    record = tmp_path / "rollouts.jsonl"
    broken = {"name": "break_a_step.BreakAStep", "args": {"step": 2}}
    operators = {"data_processor__experience_pipeline__operators": [broken]}
    config = write_config(RECIPE / "config.yaml", tmp_path / "config.yaml", name="broken", **operators)
    job = tmp_path / "checkpoints" / "Learn2Ask" / "broken"
    arguments = command(models, config, *SMALL, "--total_steps=2")
    with fake_gpus(tmp_path, 2) as cluster:
        failed = run_main(arguments, env=cluster.env, log=tmp_path / "first.log")
        reached = last_checkpoint(job)
        write_config(RECIPE / "config.yaml", config, name="broken", **recorded(record))
        code = run_main(arguments, env=cluster.env, log=tmp_path / "second.log")

    assert (failed, reached) == (1, 1), tail(tmp_path / "first.log")
    assert "Step 2 failed and does not count" in (tmp_path / "first.log").read_text(errors="replace")
    assert code == 0, tail(tmp_path / "second.log")
    assert {rollout.step for rollout in read_rollouts(record)} == {2}


def test_a_grader_whose_answers_cannot_be_read_leaves_rollouts_out_and_counts_them(models, tmp_path):
    """Given the policy as its own grader, which never gives scores, then the steps are full all the same."""
    config = write_config(RECIPE / "config.yaml", tmp_path / "config.yaml", name="unread")
    job = tmp_path / "checkpoints" / "Learn2Ask" / "unread"
    flags = [f"--auxiliary_model_path={models / 'policy'}", "--auxiliary_tensor_parallel_size=1"]
    arguments = command(models, config, *flags, "--inference_engine_num=1", "--total_steps=1", "--batch_size=8")
    with fake_gpus(tmp_path, 3) as cluster:
        code = run_main(arguments, env=cluster.env, log=tmp_path / "log")

    assert code == 0, tail(tmp_path / "log")
    assert scalars(job, "rollout/grader_failures/mean") == {1: 1.0}
    assert scalars(job, "experience_pipeline/ungraded_rollouts")[1] > 0
    assert "rollout left out of the update" in (tmp_path / "log").read_text(errors="replace")


@contextmanager
def small_disk(folder, megabytes):
    """A file system of its own; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be made by root")
def test_a_disk_that_is_full_at_a_checkpoint_ends_the_run_with_what_to_do(models, tmp_path):
    """Given room for one checkpoint, then the run ends with 1 and not in a hang, and goes on once there is room."""
    config = write_config(RECIPE / "config.yaml", tmp_path / "config.yaml", name="full")
    log = tmp_path / "log"
    with small_disk(tmp_path / "disk", 30) as disk, fake_gpus(tmp_path, 2) as cluster:
        env = cluster.env | {"TRINITY_CHECKPOINT_ROOT_DIR": str(disk)}
        code = run_main(command(models, config, *SMALL, "--total_steps=4"), env=env, log=log)
        reached = last_checkpoint(disk / "Learn2Ask" / "full")

    assert code == 1, tail(log)
    assert 1 <= reached < 4
    assert "the disk is full" in log.read_text(errors="replace")
