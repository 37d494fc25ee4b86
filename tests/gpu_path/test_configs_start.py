"""The other GPU configs make a step, each with its header's allocation on as many faked GPUs."""

import pytest
from cpu_settings import write_config
from fake_gpus import RECIPE, command, fake_gpus, run_main, tail

from tuner.learn_to_ask.training.resume import last_checkpoint


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "nodes", "flags", "changes"),
    [
        # the endpoint of the grader is the one thing that a config without GPUs for it leaves open
        ("two_gpus", (2,), ["--inference_engine_num=1", "--grader=offline"], {}),
        ("four_gpus", (4,), ["--inference_engine_num=1", "--auxiliary_tensor_parallel_size=1"], {}),
        # nodes of 4 instead of 8 GPUs, with half of its engines: memory for more processes is not there
        ("multi_node", (4, 4), ["--inference_engine_num=4"], {"cluster__gpu_per_node": 4}),
    ],
)
def test_a_config_makes_its_first_step(name, nodes, flags, changes, models, tmp_path):
    source = RECIPE / "configs" / f"{name}.yaml"
    config = write_config(source, tmp_path / "config.yaml", name=name, **changes)
    log = tmp_path / "log"
    with fake_gpus(tmp_path, *nodes) as cluster:
        code = run_main(command(models, config, *flags, "--total_steps=1"), env=cluster.env, log=log)

    assert code == 0, tail(log)
    assert last_checkpoint(tmp_path / "checkpoints" / "Learn2Ask" / name) == 1
