"""The shipped configs, as their headers say to start them, through Trinity's own validation with faked GPUs.

The command is read from each file, main.py makes of it what tune() gets, tune() makes of that a Trinity config, and
Trinity validates it for as many GPUs as the header promises.
"""

import dataclasses
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tuner.learn_to_ask import main, preflight
from tuner.learn_to_ask.preflight import gpu_allocation, suggest_allocation
from tuner.learn_to_ask.ray_cluster import ClusterAddress

RECIPE = Path(__file__).parents[1] / "tuner" / "learn_to_ask"
# Config -> GPUs of each node, and who gets them: policy, grader, trainer.
ON_GPUS = {
    "config.yaml": ((8,), (4, 2, 2)),
    "configs/two_gpus.yaml": ((2,), (1, 0, 1)),
    "configs/four_gpus.yaml": ((4,), (1, 1, 2)),
    "configs/multi_node.yaml": ((8, 8), (8, 4, 4)),
}
ON_TINKER = ("configs/tinker.yaml", "quickstart/config.yaml")
CARD_80_GB = 79 * 2**30  # what is left of it for programs
CARD_96_GB = 95 * 2**30
# The published architectures: hidden, layers, heads, key-value heads, intermediate, vocabulary, tied embeddings.
QWEN_2_5 = {
    "Qwen2.5-3B-Instruct": (2048, 36, 16, 2, 11008, 151936, True),
    "Qwen2.5-7B-Instruct": (3584, 28, 28, 4, 18944, 152064, False),
    "Qwen2.5-32B-Instruct": (5120, 64, 40, 8, 27648, 152064, False),
}


def header(path):
    """The comment that a file begins with."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#"))
    return "\n".join(lines)


def command_of(path):
    """The flags of the command in the header of a file, and the variables that it exports."""
    text = header(path).replace("\\\n", " ")
    [command] = re.findall(r"^ +python tuner/learn_to_ask/main\.py(.*)$", text, re.MULTILINE)
    return shlex.split(command), dict(re.findall(r"^ +export (\w+)=(.*)$", text, re.MULTILINE))


def test_every_shipped_config_is_tested_here():
    shipped = {str(path.relative_to(RECIPE)) for path in RECIPE.rglob("*.yaml")}

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


# --- the whole way, through Trinity


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts main.py as a header says, on local models and 16 tasks; returns settings, config and Trinity's config."""
    import agentscope.tuner
    from agentscope.tuner._config import _to_trinity_config

    task = {"session_id": "1", "messages": [{"role": "user", "content": "it hurts"}], "info_truth": "symptom: pain"}
    tasks = [{**task, "cid": f"{number}_0", "decision_truth": ("continue", "stop")[number % 2]} for number in range(16)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in tasks))
    monkeypatch.setattr(main, "_special_tokens", lambda _: ())
    monkeypatch.setattr(main, "cluster_address", lambda _: ClusterAddress(None))
    monkeypatch.setattr(main, "last_checkpoint", lambda _: 10**6)
    monkeypatch.setattr(main, "save_sampler_weights", lambda *_: None)
    monkeypatch.setattr(preflight, "preflight", lambda *_, **__: [])

    def model(name):
        """A folder with what Trinity reads of a model: its architecture."""
        folder = tmp_path / "models" / Path(name).name
        folder.mkdir(parents=True, exist_ok=True)
        hidden, layers, heads, kv_heads, intermediate, vocabulary, tied = QWEN_2_5.get(
            folder.name, (64, 2, 4, 2, 128, 1000, True)
        )
        architecture = {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": intermediate,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
        }
        (folder / "config.json").write_text(json.dumps(architecture))
        return str(folder)

    def start(path, flags=None):
        given, exported = command_of(path)
        flags = given if flags is None else flags
        for name, value in {"TRINITY_CHECKPOINT_ROOT_DIR": str(tmp_path / "checkpoints"), **exported}.items():
            monkeypatch.setenv(name, str(tmp_path / "checkpoints") if name.endswith("ROOT_DIR") else value)
        seen = {}
        train = main.train

        def train_locally(settings, config):
            local = dataclasses.replace(
                settings,
                model_path=model(settings.model_path),
                auxiliary_model_path=model(settings.auxiliary_model_path),
                data=tmp_path,
            )
            seen.update(settings=local, config=config)
            return train(local, config)

        def tune(**arguments):
            seen["trinity"] = _to_trinity_config(**arguments)

        monkeypatch.setattr(agentscope.tuner, "tune", tune)
        monkeypatch.setattr(main, "train", train_locally)
        monkeypatch.setattr("sys.argv", ["main.py", "--config", str(path), *_without_config(flags)])
        main.main()
        monkeypatch.setattr(main, "train", train)
        return seen["settings"], seen["config"], seen["trinity"]

    return start


def _without_config(flags):
    """The flags without --config, whose path is relative to the checkout."""
    if "--config" not in flags:
        return flags
    at = flags.index("--config")
    return flags[:at] + flags[at + 2 :]


@pytest.fixture
def cluster(monkeypatch):
    """Fakes where Trinity asks for nodes and GPUs: Ray, and the memory of the first GPU."""
    import ray
    import torch
    from trinity.common.config_validator import GPUMemoryValidator

    def build(nodes, memory):
        alive = [{"alive": True, "Resources": {"GPU": float(gpus), "CPU": 32.0}} for gpus in nodes]
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: alive)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))

    def refuse(_, error, timeout=0.0):
        raise error  # Trinity would only ask whoever sits at the terminal

    monkeypatch.setattr(GPUMemoryValidator, "_get_user_choice", refuse)
    return build


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_GPUS)
def test_trinity_validates_the_config_and_deals_out_the_gpus_as_our_preflight_does(name, started, cluster):
    nodes, expected = ON_GPUS[name]
    cluster(nodes, CARD_96_GB if name == "config.yaml" else CARD_80_GB)  # the published run had 96 GB

    settings, config, trinity = started(RECIPE / name)
    trinity.check_and_update()

    ours = gpu_allocation(settings, *preflight.counted_gpus(preflight.RayCluster(nodes, 64, 1), config))
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
