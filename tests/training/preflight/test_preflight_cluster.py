"""The preflight of the cluster: who gets which GPUs, attention, the memory of the grader."""

import dataclasses

import pytest
from preflight_inputs import run_config, settings

from tuner.learn_to_ask.ray_cluster import RayCluster
from tuner.learn_to_ask.training.config_file import read_config
from tuner.learn_to_ask.training.preflight import run as checks
from tuner.learn_to_ask.training.preflight.cluster import (
    check_attention,
    check_cpus,
    check_gpus,
    check_grader_fits,
    gpu_allocation,
    gpu_finding,
    suggest_allocation,
)
from tuner.learn_to_ask.training.preflight.run import preflight
from tuner.learn_to_ask.training.settings import TrainingSettings


def test_the_published_run_rolls_out_on_4_grades_on_2_and_trains_on_2():
    allocation = gpu_allocation(TrainingSettings(), 8)

    assert (allocation.policy, allocation.grader, allocation.trainer, allocation.problem) == (4, 2, 2, "")
    assert [line.split()[:2] for line in allocation.table.splitlines()] == [
        ["policy", "4"],
        ["grader", "2"],
        ["trainer", "2"],
        ["present", "8"],
    ]


def test_an_external_grader_frees_its_gpus():
    assert gpu_allocation(TrainingSettings(grader="openai"), 8).trainer == 4


@pytest.mark.parametrize("gpus", [1, 4, 6])
def test_nothing_left_for_the_trainer_does_not_fit(gpus):
    assert "leave none" in gpu_allocation(TrainingSettings(), gpus).problem


def test_one_gpu_is_shared_when_nothing_else_needs_it():
    one = TrainingSettings(grader="openai", inference_engine_num=1)

    assert gpu_allocation(one, 1).problem == ""
    assert "leave none" in gpu_allocation(dataclasses.replace(one, inference_engine_num=2), 1).problem


@pytest.mark.parametrize(
    ("gpus", "node", "engines", "problem"),
    [
        (24, 8, 6, ""),  # 8 explore, 16 train: two whole nodes
        (24, 8, 7, "no whole nodes"),  # 9 explore, 15 train
        (16, 8, 10, ""),  # 12 explore, 4 train
        (16, 8, 7, "on two nodes"),  # the grader's two GPUs would be the last of one node and the first of the next
    ],
)
def test_on_several_nodes_the_trainer_takes_whole_ones_and_engines_stay_within(gpus, node, engines, problem):
    allocation = gpu_allocation(TrainingSettings(inference_engine_num=engines), gpus, node)

    assert problem in allocation.problem
    assert bool(problem) == bool(allocation.problem)


@pytest.mark.parametrize(
    ("batch", "parallel", "problem"),
    [
        (64, 1, ""),  # 64 x 5 rollouts for 4 GPUs
        (63, 1, "315 rollouts of a step (--batch_size x --group_size) are no multiple of the trainer's 4 shares"),
        (63, 4, ""),  # the 4 GPUs share each sequence
        (64, 3, "ulysses_sequence_parallel_size 3 does not divide the trainer's 4 GPUs"),
    ],
)
def test_the_trainers_gpus_share_the_rollouts_of_a_step_evenly(batch, parallel, problem):
    settings = TrainingSettings(grader="openai", batch_size=batch)

    allocation = gpu_allocation(settings, 8, sequence_parallel=parallel)

    assert problem in allocation.problem
    assert bool(problem) == bool(allocation.problem)


@pytest.mark.parametrize("gpus", range(2, 9))
def test_suggestions_for_one_node_are_valid_themselves(gpus):
    suggested = TrainingSettings(**suggest_allocation(gpus))

    assert gpu_allocation(suggested, gpus).problem == ""
    assert (suggested.grader == "auxiliary") == (gpus > 3)


@pytest.mark.parametrize(("gpus", "dealt_out"), [(2, (1, 0, 1)), (4, (1, 1, 2)), (8, (4, 2, 2)), (16, (8, 4, 4))])
def test_suggestions_for_the_usual_numbers(gpus, dealt_out):
    allocation = gpu_allocation(TrainingSettings(**suggest_allocation(gpus)), gpus, min(gpus, 8))

    assert (allocation.policy, allocation.grader, allocation.trainer) == dealt_out
    assert allocation.problem == ""


def test_what_does_not_fit_names_the_flags_that_do():
    found = gpu_finding(TrainingSettings(), 4, 4)

    assert found.level == "fatal"
    assert "--inference_engine_num 1 --tensor_parallel_size 1 --auxiliary_engine_num 1" in found.verdict
    assert "policy     4" in found.details


def test_no_gpu_at_all_points_to_tinker():
    assert "model.tinker.enable" in gpu_finding(TrainingSettings(), 0, 0).verdict


def test_the_gpus_of_the_cluster_count(tmp_path):
    found = check_gpus(TrainingSettings(inference_engine_num=10), run_config(tmp_path), RayCluster((8, 8), 64, 1))

    assert found.level == "ok"
    assert "present   16" in found.details


def test_nodes_that_differ_must_be_spelled_out(tmp_path):
    cluster = RayCluster((0, 8), 64, 1)  # a head node without GPUs, which Trinity counts as 8 more

    assert check_gpus(TrainingSettings(), run_config(tmp_path), cluster).level == "fatal"
    raw = {"cluster": {"node_num": 1, "gpu_per_node": 8}}
    assert check_gpus(TrainingSettings(), run_config(tmp_path, raw=raw), cluster).level == "ok"


def test_a_cluster_that_is_not_complete_yet_is_not_trained_on(tmp_path):
    raw = {"cluster": {"node_num": 2, "gpu_per_node": 8}}
    settings = TrainingSettings(inference_engine_num=10)

    found = check_gpus(settings, run_config(tmp_path, raw=raw), RayCluster((8,), 64, 1))

    assert found.level == "fatal"
    assert "are 16 GPUs, Ray has 8: start the missing nodes" in found.verdict
    assert check_gpus(settings, run_config(tmp_path, raw=raw), RayCluster((8, 8), 64, 1)).level == "ok"


@pytest.mark.parametrize(("cpus", "levels"), [(5, ["fatal"]), (6, [])])
def test_3_cpus_for_each_gpu_of_the_trainer_are_needed(cpus, levels, tmp_path):
    # With fewer the run would wait for them without end.
    found = check_cpus(TrainingSettings(), run_config(tmp_path), RayCluster((8,), cpus, 1))

    assert [finding.level for finding in found] == levels
    assert all("Ray has 5, the trainer's 2 GPUs take 3 each" in finding.verdict for finding in found)


def test_a_cluster_of_its_own_has_the_cpus_of_this_machine(machine, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("ray._private.utils.get_num_cpus", lambda: 2)

    [found] = check_cpus(TrainingSettings(inference_engine_num=1, grader="offline"), run_config(tmp_path), None)

    assert found.level == "fatal"
    assert "--num-cpus 3` or more" in found.verdict


def test_two_nodes_of_8_are_dealt_out_and_a_folder_that_both_see_is_asked_for(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(checks.check_ray, "__defaults__", (lambda _: RayCluster((8, 8), 64, 1),))
    two_nodes = settings(**suggest_allocation(16), data=tmp_path, batch_size=64)

    found = {finding.check: finding for finding in preflight(two_nodes, run_config(tmp_path, ray_address="head:1"))}

    assert found["ray"].verdict.startswith("head:1: 2 nodes, 64 CPUs, 16 GPUs")
    assert found["gpus"].level == "ok"
    assert [line.split()[:2] for line in found["gpus"].details.splitlines()] == [
        ["policy", "8"],
        ["grader", "4"],
        ["trainer", "4"],
        ["present", "16"],
    ]
    assert found["shared folder"].level == "warning"
    assert str(tmp_path / "run" / "job") in found["shared folder"].verdict


def test_advice_keeps_a_grader_that_takes_no_gpus():
    """Given rules as the grader, when too many engines are asked for, then no grader on GPUs is advised."""
    for grader in ("offline", "openai"):
        found = gpu_finding(TrainingSettings(grader=grader, inference_engine_num=8), 8, 8)

        assert found.level == "fatal"
        assert "--grader" not in found.verdict.partition(": ")[2]
        assert "--inference_engine_num 6" in found.verdict
    assert "--grader" not in gpu_finding(TrainingSettings(grader="offline"), 1, 1).verdict


@pytest.mark.parametrize("gpus", [2, 3, 4, 5, 6, 7, 8, 16])
def test_every_number_of_gpus_has_an_allocation_for_a_grader_without_gpus(gpus):
    suggested = TrainingSettings(**{"grader": "offline", **suggest_allocation(gpus, "offline")})

    assert suggested.grader == "offline"
    assert not gpu_allocation(suggested, gpus, min(gpus, 8)).problem


def test_gpus_named_through_the_environment_are_counted(tmp_path, monkeypatch):
    """Given `cluster.gpu_per_node: ${oc.env:...}`, when the GPUs are dealt out, then the resolved number counts."""
    monkeypatch.setenv("GPUS", "4")
    file = tmp_path / "config.yaml"
    file.write_text("cluster: {node_num: 2, gpu_per_node: '${oc.decode:${oc.env:GPUS}}'}\n")
    config = read_config(file)

    found = check_gpus(TrainingSettings(), config, RayCluster((4, 4), 64, 1))

    assert found.verdict == "8 are dealt out:"


def test_sequence_parallelism_through_an_interpolation_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL", "3")
    file = tmp_path / "config.yaml"
    file.write_text("trainer: {ulysses_sequence_parallel_size: '${oc.decode:${oc.env:PARALLEL}}'}\n")

    found = check_gpus(TrainingSettings(), read_config(file), RayCluster((8,), 64, 1))

    assert "ulysses_sequence_parallel_size 3 does not divide the trainer's 2 GPUs" in found.verdict


# --- attention and memory


def test_without_flash_attention_the_trainer_computes_otherwise_and_says_so(tmp_path):
    found = check_attention(run_config(tmp_path), installed=False)

    assert found.level == "warning"
    assert "PyTorch's attention" in found.verdict
    assert check_attention(run_config(tmp_path), installed=True).level == "ok"


FLASH = {"attn_implementation": "flash_attention_2"}


@pytest.mark.parametrize(
    ("trainer", "key"),
    [
        (
            {
                "trainer_config": {
                    "actor_rollout_ref": {"model": {"override_config": {"attn_implementation": "flash_attention_2"}}}
                }
            },
            "override_config.attn_implementation",
        ),
        ({"trainer_config": {"actor_rollout_ref": {"model": {"use_remove_padding": True}}}}, "use_remove_padding"),
        ({"ulysses_sequence_parallel_size": 2}, "trainer.ulysses_sequence_parallel_size"),
    ],
)
def test_a_key_that_needs_flash_attention_is_refused_without_it(trainer, key, tmp_path):
    found = check_attention(run_config(tmp_path, raw={"trainer": trainer}), installed=False)

    assert (found.level, key in found.verdict) == ("fatal", True)


@pytest.mark.parametrize(("split", "level"), [(1, "fatal"), (2, "ok")])
def test_a_grader_that_does_not_fit_is_refused_before_the_start(split, level):
    """32 billion parameters are 64 GB in bfloat16: too much for the 0.9 of one GPU of 64 GB, not for two."""
    settings = TrainingSettings(auxiliary_tensor_parallel_size=split)

    found = check_grader_fits(settings, 32_000_000_000, 64_000_000_000, 0.9)

    assert found.level == level
    assert ("--auxiliary_tensor_parallel_size" in found.verdict) == (level == "fatal")
