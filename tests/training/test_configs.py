"""The shipped configs, as their headers say to start them, through Trinity's own validation with faked GPUs.

The command is read from each file, main.py makes of it what tune() gets, tune() makes of that a Trinity config, and
Trinity validates it for as many GPUs as the header promises.
"""

import re
from types import SimpleNamespace

import pytest
import yaml
from shipped_configs import ON_GPUS, ON_TINKER, RECIPE, command_of, header

from tuner.learn_to_ask.ray_cluster import RayCluster
from tuner.learn_to_ask.training.preflight.cluster import counted_gpus, gpu_allocation, suggest_allocation

CARD_80_GB = 79 * 2**30  # what is left of it for programs


CARD_96_GB = 95 * 2**30


def test_every_shipped_config_is_tested_here():
    others = {"domains", "engines"}  # fields of interviews, prices
    shipped = {str(path.relative_to(RECIPE)) for path in RECIPE.rglob("*.yaml") if path.parent.name not in others}

    assert shipped == {*ON_GPUS, *ON_TINKER}


@pytest.mark.parametrize("name", [*ON_GPUS, *ON_TINKER])
def test_the_command_in_the_header_names_its_own_file(name):
    flags, _ = command_of(RECIPE / name)

    named = flags[flags.index("--config") + 1] if "--config" in flags else "tuner/learn_to_ask/config.yaml"
    assert named == f"tuner/learn_to_ask/{name}"


@pytest.mark.parametrize("name", [*ON_GPUS, *ON_TINKER])
def test_every_key_is_explained_here_or_in_the_default(name):
    def keys(node):
        return {key for key, value in node.items() for key in (key, *(keys(value) if isinstance(value, dict) else ()))}

    def explained(path):
        return set(re.findall(r"^ *(\w+): .*# ", path.read_text(), re.MULTILINE))

    sections = {"model", "tinker", "explorer", "trainer", "synchronizer", "monitor", "cluster"}
    plain = {"project", "checkpoint_root_dir"}
    config = yaml.safe_load((RECIPE / name).read_text())
    assert keys(config) - sections - plain <= explained(RECIPE / name) | explained(RECIPE / "config.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_GPUS)
def test_trinity_validates_the_config_and_deals_out_the_gpus_as_our_preflight_does(name, started, cluster):
    nodes, expected = ON_GPUS[name]
    cluster(nodes, CARD_96_GB if name == "config.yaml" else CARD_80_GB)  # the published run had 96 GB

    settings, config, trinity = started(RECIPE / name)
    trinity.check_and_update()

    ours = gpu_allocation(settings, *counted_gpus(RayCluster(nodes, 64, 1), config))
    assert ours.problem == ""
    assert (ours.policy, ours.grader, ours.trainer) == expected
    theirs = trinity.cluster
    assert (theirs.rollout_gpu_num, theirs.auxiliary_model_gpu_num, theirs.trainer_gpu_num) == expected


@pytest.mark.slow
def test_what_the_user_set_reaches_trinity_unchanged(started, cluster):
    cluster((8,), CARD_96_GB)

    settings, _, trinity = started(RECIPE / "config.yaml")
    trinity.check_and_update()

    written = yaml.safe_load((RECIPE / "config.yaml").read_text())
    for section, key in (
        ("explorer", "max_timeout"),
        ("explorer", "concurrent_mode"),
        ("explorer", "runner_per_model"),
    ):
        assert getattr(getattr(trinity, section), key) == written[section][key]
    assert trinity.synchronizer.sync_interval == written["synchronizer"]["sync_interval"] == 10
    assert trinity.synchronizer.sync_method.name == "NCCL"
    assert trinity.trainer.save_interval == 90
    assert trinity.trainer.trainer_config.trainer.save_freq == 90
    assert trinity.buffer.explorer_input.eval_tasksets == []  # whatever eval_interval says
    assert trinity.algorithm.algorithm_type == "grpo"
    assert trinity.algorithm.repeat_times == settings.group_size == 5
    assert trinity.algorithm.optimizer.lr == 5e-7
    assert (trinity.buffer.batch_size, trinity.buffer.total_epochs) == (64, 4)
    assert trinity.explorer.rollout_model.reasoning_parser == ""
    assert [grader.reasoning_parser for grader in trinity.explorer.auxiliary_models] == [""]


@pytest.mark.slow
def test_what_the_file_says_of_the_engines_reaches_trinity_although_tune_has_no_argument_for_it(
    started, cluster, tmp_path
):
    config = yaml.safe_load((RECIPE / "config.yaml").read_text())
    config["explorer"]["rollout_model"] = {"dtype": "float16", "tool_call_parser": "mine", "enforce_eager": True}
    config["explorer"]["auxiliary_models"] = [{"gpu_memory_utilization": 0.5, "enable_auto_tool_choice": False}]
    (tmp_path / "config.yaml").write_text(f"#   python tuner/learn_to_ask/main.py\n{yaml.safe_dump(config)}")
    cluster((8,), CARD_96_GB)

    _, _, trinity = started(tmp_path / "config.yaml")

    policy, [grader] = trinity.explorer.rollout_model, trinity.explorer.auxiliary_models
    assert (policy.dtype, policy.tool_call_parser, policy.enforce_eager) == ("float16", "mine", True)
    assert (grader.gpu_memory_utilization, grader.enable_auto_tool_choice) == (0.5, False)
    assert (policy.tensor_parallel_size, policy.engine_num) == (1, 4)
    assert (grader.tensor_parallel_size, grader.engine_num) == (2, 1)


@pytest.mark.slow
def test_packs_of_half_the_length_fit_the_default_on_cards_of_80_gb_as_its_header_says(
    started, cluster, tmp_path, monkeypatch
):
    config = yaml.safe_load((RECIPE / "config.yaml").read_text())
    cluster((8,), CARD_80_GB)
    _, _, whole = started(RECIPE / "config.yaml")
    with pytest.raises(ValueError, match="Unsafe GPU memory usage"):
        whole.check_and_update()

    config["trainer"]["max_token_len_per_gpu"] = 8192
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    (tmp_path / "config.yaml").write_text(f"#   python tuner/learn_to_ask/main.py\n{yaml.safe_dump(config)}")

    _, _, halved = started(tmp_path / "config.yaml")
    halved.check_and_update()

    assert "max_token_len_per_gpu: 8192" in header(RECIPE / "config.yaml")
    assert "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" in header(RECIPE / "config.yaml")


@pytest.mark.slow
def test_the_published_policy_trains_on_one_of_two_gpus_only_with_the_offload_that_the_header_names(
    started, cluster, tmp_path
):
    path = RECIPE / "configs" / "two_gpus.yaml"
    config = yaml.safe_load(path.read_text())
    flags = [flag.replace("2.5-3B", "2.5-7B") for flag in command_of(path)[0]]
    cluster((2,), CARD_80_GB)
    _, _, resident = started(path, flags)
    with pytest.raises(ValueError, match="Unsafe GPU memory usage"):
        resident.check_and_update()

    offload = {"actor_rollout_ref": {"actor": {"fsdp_config": {"offload_policy": True}}}}
    config["trainer"].update(trainer_strategy="fsdp2", trainer_config=offload)
    (tmp_path / "config.yaml").write_text(f"#   python tuner/learn_to_ask/main.py\n{yaml.safe_dump(config)}")

    _, _, offloaded = started(tmp_path / "config.yaml", flags)
    offloaded.check_and_update()

    for key in ("trainer.trainer_strategy: fsdp2", "fsdp_config.offload_policy: true"):
        assert key in header(path)


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "nodes"), [(2, (2,)), (4, (4,)), (8, (8,)), (16, (8, 8))])
def test_what_the_preflight_suggests_for_a_number_of_gpus_is_valid_for_trinity(gpus, nodes, started, cluster):
    cluster(nodes, CARD_96_GB)
    changes = suggest_allocation(gpus)
    flags = [f"--{name}={value}" for name, value in changes.items()]
    endpoint = ["--grader_base_url=http://127.0.0.1:1/v1", "--grader_model=judge"]

    settings, _, trinity = started(RECIPE / "config.yaml", [*flags, *endpoint])
    trinity.ignore_validator_suggestions = True  # of memory, which depends on the model
    trinity.check_and_update()

    ours = gpu_allocation(settings, gpus, nodes[0])
    assert ours.problem == ""
    theirs = trinity.cluster
    assert (theirs.rollout_gpu_num, theirs.auxiliary_model_gpu_num, theirs.trainer_gpu_num) == (
        ours.policy,
        ours.grader,
        ours.trainer,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "flags"),
    [
        ((6,), []),  # nothing left for the trainer
        ((7,), ["--batch_size=63"]),  # 315 rollouts for the trainer's one GPU are fine ...
        ((8,), ["--batch_size=63"]),  # ... and for two are not
        ((8, 8, 8), ["--inference_engine_num=7"]),  # 15 trainer GPUs are no whole nodes
        ((8, 8, 8), ["--inference_engine_num=6"]),  # 16 are
        ((1,), ["--inference_engine_num=1"]),  # one GPU, and the grader wants two
    ],
)
def test_our_preflight_refuses_what_trinity_refuses(nodes, flags, started, cluster):
    cluster(nodes, CARD_96_GB)

    settings, _, trinity = started(RECIPE / "config.yaml", flags)
    trinity.ignore_validator_suggestions = True
    try:
        trinity.check_and_update()
        refused = False
    except ValueError:
        refused = True

    assert bool(gpu_allocation(settings, sum(nodes), nodes[0]).problem) == refused


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_TINKER)
def test_on_tinker_trinity_takes_everything_there_at_the_learning_rate_of_lora(name, started, monkeypatch):
    import tinker

    monkeypatch.setenv("TINKER_API_KEY", "tml-none")
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:1")
    settings, config, trinity = started(RECIPE / name)
    offered = [SimpleNamespace(model_name=path) for path in (settings.model_path, settings.auxiliary_model_path)]
    capabilities = SimpleNamespace(supported_models=offered)
    service = SimpleNamespace(get_server_capabilities=lambda: capabilities)
    monkeypatch.setattr(tinker, "ServiceClient", lambda base_url=None: service)

    trinity.check_and_update()

    assert config.tinker
    engines = [trinity.explorer.rollout_model, *trinity.explorer.auxiliary_models]
    assert {engine.engine_type for engine in engines} == {"tinker"}
    assert trinity.trainer.trainer_type == "tinker"
    assert trinity.synchronizer.sync_method.name == "CHECKPOINT"
    assert trinity.algorithm.optimizer.lr == (settings.learning_rate or 5e-6)
    assert len(trinity.explorer.auxiliary_models) == (settings.grader == "auxiliary")


@pytest.mark.slow
def test_the_tinker_variant_leaves_the_learning_rate_to_its_default(started, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", "tml-none")

    settings, _, trinity = started(RECIPE / "configs" / "tinker.yaml")

    assert settings.learning_rate is None
    assert trinity.algorithm.optimizer.lr == 5e-6
    assert "5e-6" in header(RECIPE / "configs" / "tinker.yaml")
