"""`checkpoint` and `memory` weight sync: killed with -9, then taken up again with the right weights at once."""

import pytest
from cpu_settings import write_config
from fake_gpus import RECIPE, command, end_after_checkpoint, fake_gpus, run_main, tail
from rollouts import mean_difference, read_rollouts, recorded

from tuner.learn_to_ask.training.resume import last_checkpoint

STEPS = 3


@pytest.mark.long
@pytest.mark.parametrize("method", ["checkpoint", "memory"])
def test_a_killed_run_goes_on_with_the_weights_of_its_checkpoint(method, models, tmp_path):
    record = tmp_path / "rollouts.jsonl"
    changes = {"synchronizer__sync_method": method, "trainer__save_hf_checkpoint": "always", **recorded(record)}
    config = write_config(RECIPE / "config.yaml", tmp_path / "config.yaml", name=method, **changes)
    job = tmp_path / "checkpoints" / "Learn2Ask" / method
    flags = [f"--total_steps={STEPS}", "--grader=offline", "--inference_engine_num=1"]
    arguments = command(models, config, *flags)
    with fake_gpus(tmp_path, 2) as cluster:
        end_after_checkpoint(arguments, job, 1, env=cluster.env, log=tmp_path / "first.log")
        reached, skip = last_checkpoint(job), len(read_rollouts(record))
        code = run_main(arguments, env=cluster.env, log=tmp_path / "second.log")

    assert code == 0, tail(tmp_path / "second.log")
    assert last_checkpoint(job) == STEPS
    rollouts = read_rollouts(record, skip)
    assert {(r.step, r.version) for r in rollouts} == {(step, step - 1) for step in range(reached + 1, STEPS + 1)}
    first = [r for r in rollouts if r.version == reached][:8]
    synced = mean_difference(job / f"global_step_{reached}" / "actor" / "huggingface", first)
    base = mean_difference(models / "policy", first)
    assert synced < 0.05, (synced, base)
    assert base > 2 * synced, (synced, base)
