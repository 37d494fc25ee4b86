"""The preflight: every check by itself, and all of them together."""

import dataclasses
import json
import socket
import sys
from types import SimpleNamespace

import pytest
from fault_server import Fault, FaultServer, http_error

from tuner.learn_to_ask import preflight as checks
from tuner.learn_to_ask.config_file import RunConfig, read_config
from tuner.learn_to_ask.main import TrainingSettings
from tuner.learn_to_ask.model_files import missing_model_files
from tuner.learn_to_ask.preflight import (
    Finding,
    ModelPlace,
    RayCluster,
    check_attention,
    check_cpus,
    check_disk,
    check_gpus,
    check_grader,
    check_grader_fits,
    check_learning_rate,
    check_monitor,
    check_prompt_lengths,
    check_tinker,
    dataset_findings,
    exit_code,
    gpu_allocation,
    gpu_finding,
    locate_model,
    offered_models,
    preflight,
    print_findings,
    prompt_length_finding,
    scan_dataset,
    suggest_allocation,
    within,
)
from tuner.learn_to_ask.records import Task
from tuner.learn_to_ask.resume import identity, record

PATIENT = {"role": "user", "content": "it hurts"}
DOCTOR = {"role": "assistant", "content": "where?"}
CONTINUE = {
    "cid": "1_0",
    "session_id": "1",
    "messages": [PATIENT],
    "decision_truth": "continue",
    "info_truth": "symptom: cough",
}
STOP = {**CONTINUE, "cid": "1_2", "decision_truth": "stop", "info_truth": ""}
SMALL = {"batch_size": 2, "total_epochs": 1}
GOOD_GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"


def settings(**changes):
    return TrainingSettings(**{**SMALL, **changes})


def run_config(tmp_path, *, tinker=False, raw=None, ray_address="local"):
    return RunConfig(
        raw=raw or {},
        resolved=raw or {},
        tinker=tinker,
        base_url=None,
        ray_address=ray_address,
        job_folder=tmp_path / "run" / "job",
    )


def judged(tmp_path, *tasks, **changes):
    """The findings on a dataset by check."""
    file = tmp_path / "train.jsonl"
    file.write_text("".join((task if isinstance(task, str) else json.dumps(task)) + "\n" for task in tasks))
    return {finding.check: finding for finding in dataset_findings(scan_dataset(file), settings(**changes))}


# --- dataset


def test_a_good_dataset_is_told_in_numbers(tmp_path):
    found = judged(tmp_path, CONTINUE, STOP)

    assert {finding.level for finding in found.values()} == {"ok"}
    assert found["dataset"].verdict == "2 tasks: 1 continue, 1 stop"
    assert found["steps"].verdict == "2 tasks x 1 epochs / batches of 2 = 1 steps"


def test_bad_lines_are_fatal_and_the_first_are_named_with_line_and_reason(tmp_path, capsys):
    found = judged(tmp_path, CONTINUE, STOP, "{", CONTINUE, {**STOP, "cid": 7}, "[]")["dataset lines"]

    assert found.level == "fatal"
    assert found.verdict.startswith("4 cannot be used: line 3: not JSON")
    assert "line 4: duplicate cid '1_0'" in found.verdict
    assert "line 5: cid: " in found.verdict
    assert "line 6" not in found.verdict
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("empty", ["", "  "])
def test_continue_without_information_is_fatal(empty, tmp_path):
    bad = [{**CONTINUE, "cid": f"{number}_0", "info_truth": empty} for number in range(5)]

    found = judged(tmp_path, STOP, *bad)["info_truth"]

    assert found.level == "fatal"
    assert "5 tasks (0_0, 1_0, 2_0 and 2 more)" in found.verdict


def test_a_last_message_of_the_assistant_is_fatal(tmp_path):
    found = judged(tmp_path, CONTINUE, {**STOP, "messages": [PATIENT, DOCTOR]})["last message"]

    assert found.level == "fatal"
    assert "1_2" in found.verdict


def test_a_missing_decision_is_a_warning_because_it_counts_as_continue(tmp_path):
    bare = {key: value for key, value in CONTINUE.items() if key != "decision_truth"}

    found = judged(tmp_path, bare, STOP)

    assert found["decision_truth"].level == "warning"
    assert found["dataset"].verdict == "2 tasks: 1 continue, 1 stop"


@pytest.mark.parametrize(("mode", "level"), [("Ra+Rs", "fatal"), ("Rs", "fatal"), ("Ra", "warning")])
def test_one_decision_alone_can_only_train_questions(mode, level, tmp_path):
    found = judged(tmp_path, CONTINUE, {**CONTINUE, "cid": "2_0"}, train_mode=mode)["decisions"]

    assert found.level == level
    assert "no task says stop" in found.verdict


def test_an_empty_split_is_fatal_and_nothing_else_is_said_of_it(tmp_path):
    found = judged(tmp_path, "")

    assert {check: finding.level for check, finding in found.items()} == {"dataset": "fatal"}


def test_a_dataset_that_fills_no_batch_is_fatal_unless_the_steps_are_given(tmp_path):
    assert judged(tmp_path, CONTINUE, STOP, batch_size=3)["steps"].level == "fatal"
    assert judged(tmp_path, CONTINUE, STOP, batch_size=3, total_epochs=2)["steps"].level == "ok"
    assert judged(tmp_path, CONTINUE, STOP, batch_size=3, total_steps=1)["steps"].level == "ok"


# --- prompt lengths


def test_prompts_that_leave_no_room_for_a_response_are_counted():
    found = prompt_length_finding([5, 20000, 7169, 7168], 7168)

    assert found.level == "warning"
    assert "2 would be truncated" in found.verdict
    assert "their rollouts fail" in found.verdict  # what becomes of them in training
    assert "longest of 4 has 20000 tokens, 7168 fit" in found.verdict


def test_prompts_that_fit_are_ok_and_none_that_fits_is_fatal():
    assert prompt_length_finding([5, 7], 7).level == "ok"
    assert prompt_length_finding([8, 9], 7).level == "fatal"


@pytest.fixture
def word_model(tmp_path):
    """A model folder whose tokenizer takes a word for a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    model_folder(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_the_policys_own_tokenizer_measures(word_model, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({**CONTINUE, "messages": [{**PATIENT, "content": "w " * 500}]}))

    found = check_prompt_lengths(settings(model_path=word_model, data=tmp_path, max_model_len=600, max_tokens=100))

    assert found.level == "fatal"
    assert "500 fit" in found.verdict


def test_a_dialogue_of_20000_tokens_is_counted_as_truncated(word_model, tmp_path):
    turns = [{**(PATIENT, DOCTOR)[turn % 2], "content": "w " * 1000} for turn in range(19)]
    long = {**STOP, "messages": [*turns, {**PATIENT, "content": "w " * 1000}]}
    (tmp_path / "train.jsonl").write_text(f"{json.dumps(CONTINUE)}\n{json.dumps(long)}\n")

    found = check_prompt_lengths(settings(model_path=word_model, data=tmp_path))

    assert found.level == "warning"
    assert "1 would be truncated (the longest of 2 has 20" in found.verdict
    assert "7168 fit" in found.verdict  # 8192 - 1024


def test_without_the_tokenizer_the_lengths_are_not_measured_and_it_says_why(tmp_path):
    found = check_prompt_lengths(settings(model_path=str(tmp_path), data=tmp_path))

    assert found.level == "warning"
    assert str(tmp_path) in found.verdict


def test_a_response_as_long_as_the_context_is_fatal():
    assert check_prompt_lengths(settings(max_model_len=1024, max_tokens=1024)).level == "fatal"


# --- GPUs


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


# --- monitor


def monitored(tmp_path, name):
    return check_monitor(dataclasses.replace(run_config(tmp_path), monitor=name))


def test_tensorboard_is_the_default_and_installed(tmp_path):
    found = check_monitor(run_config(tmp_path))

    assert (found.level, found.verdict) == ("ok", "tensorboard: files in the run's folder, works offline")


@pytest.mark.parametrize("name", ["wandb", "mlflow", "swanlab", "tensorboard"])
def test_a_monitor_that_is_not_installed_is_fatal_and_the_way_out_is_named(name, tmp_path, monkeypatch):
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)

    found = monitored(tmp_path, name)

    assert found.level == "fatal"
    assert f"pip install {name}" in found.verdict


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_installed_monitor_says_where_the_figures_go(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, SimpleNamespace())

    assert monitored(tmp_path, name).level == "ok"


def test_swanlab_refuses_to_work_without_its_key(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "swanlab", SimpleNamespace())
    monkeypatch.delenv("SWANLAB_API_KEY", raising=False)

    assert "SWANLAB_API_KEY" in monitored(tmp_path, "swanlab").verdict
    monkeypatch.setenv("SWANLAB_API_KEY", "secret-of-swanlab")
    found = monitored(tmp_path, "swanlab")
    assert found.level == "ok"
    assert "secret-of-swanlab" not in found.verdict


# --- models and disk


def model_folder(folder, *, weights=("model.safetensors",), index=None, tokenizer=("tokenizer.json",), size=2000):
    folder.mkdir()
    (folder / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    for name in tokenizer:
        (folder / name).write_text("{}")
    for name in weights:
        (folder / name).write_bytes(b"\1" * size)
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def test_a_complete_local_model_is_fine_and_its_parameters_are_estimated(tmp_path):
    place = locate_model(str(model_folder(tmp_path / "m", size=2000)))

    assert place == ModelPlace("local folder", "", 1000)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"tokenizer": ("vocab.json", "merges.txt"), "weights": ("pytorch_model.bin",)}, []),
        ({"tokenizer": ("vocab.json",)}, ["the tokenizer files"]),
        ({"weights": ()}, ["weights (*.safetensors or *.bin)"]),
        ({"weights": ("training_args.bin",)}, ["weights (*.safetensors or *.bin)"]),
        ({"index": {"a": "model.safetensors", "b": "shard-2.safetensors"}}, ["shard-2.safetensors"]),
        ({"index": ["no", "mapping"]}, ["a readable model.safetensors.index.json"]),
        ({"size": 0}, ["the content of model.safetensors (empty or a git-lfs pointer)"]),
    ],
)
def test_what_a_model_folder_lacks_is_named(files, missing, tmp_path):
    assert missing_model_files(model_folder(tmp_path / "m", **files)) == missing


def test_on_tinker_the_weights_are_not_needed(tmp_path):
    folder = model_folder(tmp_path / "m", weights=())

    assert locate_model(str(folder), weights=False).problem == ""
    assert "lacks weights" in locate_model(str(folder)).problem


def test_a_path_that_holds_no_model_is_named(tmp_path):
    assert "no such model folder" in locate_model(str(tmp_path / "gone")).problem


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback that knows one model, and an empty cache."""
    from huggingface_hub import constants

    siblings = [{"rfilename": name} for name in ("config.json", "tokenizer.json", "model.safetensors")]
    info = {
        "id": "org/known",
        "siblings": siblings,
        "safetensors": {"parameters": {"BF16": 7000}, "total": 7000},
    }

    def plan(call):
        known = call.path.startswith("/api/models/org/known")
        return Fault(body=json.dumps(info).encode()) if known else http_error(404, X_Error_Code="RepoNotFound")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with FaultServer(plan) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.base_url.removesuffix("/v1"))
        yield server


def test_a_model_of_the_hub_is_looked_up_and_not_downloaded(hub):
    place = locate_model("org/known")

    assert place == ModelPlace("on the hub, downloaded at the start", "", 7000)
    assert len(hub.calls) == 1


def test_a_model_that_the_hub_does_not_know_is_one_line(hub):
    place = locate_model("org/unknown")

    assert "RepositoryNotFoundError" in place.problem
    assert "\n" not in place.problem


def test_a_cached_model_needs_no_hub(hub, tmp_path):
    repository = tmp_path / "cache" / "models--org--cached"
    (repository / "snapshots").mkdir(parents=True)
    model_folder(repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)

    assert locate_model("org/cached").where == "in the hub's cache"
    assert hub.calls == []


def test_offline_the_hub_is_not_asked(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert "HF_HUB_OFFLINE" in locate_model("org/known").problem
    assert hub.calls == []


@pytest.mark.parametrize(("free", "level"), [(16_000, "ok"), (15_999, "fatal")])
def test_a_checkpoint_and_its_export_take_16_bytes_a_parameter(free, level, tmp_path, monkeypatch):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    found = check_disk(tmp_path / "not" / "yet", 1000)

    assert found.level == level
    assert f" in {tmp_path}," in found.verdict


# --- Tinker


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", "tml-secret")


def tinker_settings(**changes):
    return settings(model_path="org/policy", grader="offline", **changes)


def test_without_a_key_the_service_is_not_asked(monkeypatch):
    monkeypatch.delenv("TINKER_API_KEY", raising=False)

    found = check_tinker(tinker_settings(), None, lambda _: pytest.fail("asked"))

    assert (found.level, "TINKER_API_KEY" in found.verdict) == ("fatal", True)


def test_the_sdk_asks_a_real_service(key):
    bodies = {
        "/api/v1/create_session": {"session_id": "s"},
        "/api/v1/get_server_capabilities": {"supported_models": [{"model_name": "org/policy"}]},
    }

    def plan(call):
        return Fault(body=json.dumps(bodies.get(call.path, {})).encode())

    with FaultServer(plan) as server:
        found = check_tinker(tinker_settings(), server.base_url.removesuffix("/v1"), offered_models)

    assert found.level == "ok", found.verdict
    assert "org/policy" in found.verdict


def test_a_model_that_is_not_offered_lists_what_is(key):
    found = check_tinker(tinker_settings(), "http://here", lambda _: ["org/b", "org/a"])

    assert found.level == "fatal"
    assert found.verdict == "http://here does not offer --model_path org/policy; it offers org/a, org/b"


def test_a_model_that_is_gone_names_the_nearest_that_is_offered(key):
    """Given a line-up that moved on, then the preflight is the place to learn what to take instead."""
    wanted = dataclasses.replace(tinker_settings(), model_path="Qwen/Qwen3-32B")

    found = check_tinker(wanted, "http://here", lambda _: ["Qwen/Qwen3-8B", "Qwen/Qwen3.6-27B", "org/other"])

    assert "does not offer --model_path Qwen/Qwen3-32B, did you mean Qwen/Qwen3-8B" in found.verdict
    assert found.verdict.endswith("it offers Qwen/Qwen3-8B, Qwen/Qwen3.6-27B, org/other")


def test_the_auxiliary_grader_must_be_offered_too(key):
    auxiliary = dataclasses.replace(tinker_settings(), grader="auxiliary")

    found = check_tinker(auxiliary, None, lambda _: ["org/policy"])

    assert "--auxiliary_model_path Qwen/Qwen2.5-32B-Instruct" in found.verdict


def test_a_service_that_fails_is_fatal_and_the_key_stays_hidden(key):
    def refuse(_):
        raise ConnectionError("no entry\nwith tml-secret")

    found = check_tinker(tinker_settings(), None, refuse)

    assert found.level == "fatal"
    assert "ConnectionError: no entry with ***" in found.verdict


def test_a_service_that_hangs_is_given_up(key):
    with FaultServer(lambda _: Fault(hang=True)) as server:
        found = check_tinker(
            tinker_settings(), None, lambda _: [socket.create_connection(("127.0.0.1", server.port)).recv(1)], seconds=0
        )

    assert (found.level, "TimeoutError" in found.verdict) == ("fatal", True)


# --- learning rate


@pytest.mark.parametrize(("tinker", "rate"), [(False, "5e-07"), (True, "5e-06")])
def test_the_learning_rate_that_was_not_given_is_told(tinker, rate):
    found = check_learning_rate(settings(), tinker=tinker)

    assert found.level == "ok"
    assert found.verdict.startswith(f"{rate}, the default")


def test_a_rate_for_full_fine_tuning_is_a_warning_where_lora_is_trained():
    found = check_learning_rate(settings(learning_rate=5e-7), tinker=True)

    assert found.level == "warning"
    assert "about ten times that: 5e-06" in found.verdict


@pytest.mark.parametrize(("given", "tinker"), [(5e-7, False), (1e-3, False), (5e-6, True), (1e-3, True)])
def test_a_fitting_rate_is_told_as_it_was_given(given, tinker):
    assert check_learning_rate(settings(learning_rate=given), tinker=tinker) == Finding(
        "ok", "learning rate", f"{given:g}, by --learning_rate"
    )


# --- grader

TASK = Task(**CONTINUE)


def test_the_offline_grader_is_tried():
    found = check_grader("offline", TASK)

    assert found.level == "ok"
    assert "format 1.0" in found.verdict


def test_the_auxiliary_grader_can_only_be_tried_later():
    assert check_grader("auxiliary", TASK).level == "ok"


def test_an_external_grader_gets_one_real_prompt():
    prompts = []

    def ask(messages):
        prompts.append(messages)
        return GOOD_GRADE

    found = check_grader("openai", TASK, ask)

    assert found.verdict == "--grader openai answers: format 1.0, content 0.5"
    assert len(prompts) == 1
    assert "symptom: cough" in prompts[0][0]["content"]
    assert "patient: it hurts" in prompts[0][1]["content"]


def test_a_grader_that_answers_in_prose_is_fatal_and_quoted():
    found = check_grader("openai", TASK, lambda _: "I like\nit")

    assert found.level == "fatal"
    assert r"'I like\nit'" in found.verdict


def test_a_grader_that_fails_or_was_not_given_is_told():
    def fail(_):
        raise OSError("gone")

    assert "OSError: gone" in check_grader("openai", TASK, fail).verdict
    assert check_grader("openai", TASK).level == "warning"


# --- all together


@pytest.fixture
def machine(monkeypatch):
    """No GPU, no cluster, no hub."""
    import torch
    from huggingface_hub import constants

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("ray._private.utils.get_num_cpus", lambda: 64)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("TINKER_API_KEY", raising=False)


def test_everything_that_is_wrong_is_told_at_once(machine, tmp_path, capsys):
    endpoint = {"grader": "openai", "grader_base_url": "http://127.0.0.1:1/v1", "grader_model": "judge"}
    wrong = settings(model_path=str(tmp_path / "gone"), data=tmp_path / "none.jsonl", **endpoint)

    found = preflight(wrong, run_config(tmp_path), ask_grader=lambda _: "prose")

    fatal = {finding.check for finding in found if finding.level == "fatal"}
    assert fatal >= {"dataset", "policy", "gpus", "grader"}
    assert exit_code(found) == 2
    print_findings(found)
    assert f"preflight: {len(found)} findings, {len(fatal)} fatal" in capsys.readouterr().out
    assert all("\n" not in finding.verdict for finding in found)


def test_an_openai_grader_without_an_endpoint_is_told_by_flag(machine, tmp_path):
    found = preflight(settings(grader="openai"), run_config(tmp_path), ask_grader=lambda _: GOOD_GRADE)

    said = [finding.verdict for finding in found if finding.check == "grader"]
    assert said == ["--grader_base_url: the openai grader needs it", "--grader_model: the openai grader needs it"]


def test_a_run_that_would_go_on_with_other_settings_is_refused_before_the_start(machine, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(CONTINUE))
    config = run_config(tmp_path)
    record(config.job_folder, identity(settings(data=tmp_path), config, tmp_path / "train.jsonl"))
    (config.job_folder / "latest_checkpointed_iteration.txt").write_text("90")

    def checkpoints(**changes):
        found = preflight(settings(data=tmp_path, grader="offline", **changes), config)
        [finding] = [finding for finding in found if finding.check == "checkpoints"]
        return finding

    assert checkpoints(group_size=8).level == "fatal"
    assert "--grader was auxiliary, is now offline; --group_size was 5, is now 8" in checkpoints(group_size=8).verdict


@pytest.mark.parametrize(
    ("lines", "check", "said"),
    [
        pytest.param([], "dataset", "train.jsonl", id="an empty split"),
        pytest.param(["\n"], "dataset", "the train split holds no task", id="a split of empty lines"),
        pytest.param(
            [{key: value for key, value in CONTINUE.items() if key != "decision_truth"}],
            "decisions",
            "no task says stop",
            id="no decision_truth",
        ),
        pytest.param(
            [CONTINUE, {**STOP, "messages": [PATIENT, DOCTOR]}],
            "last message",
            "1 tasks (1_2) end with a message of the assistant",
            id="a last message of the assistant",
        ),
    ],
)
def test_a_dataset_that_cannot_be_trained_on_ends_the_preflight_with_2(lines, check, said, machine, tmp_path):
    text = "".join(line if isinstance(line, str) else f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "train.jsonl").write_text(text)

    found = preflight(settings(data=tmp_path, grader="offline", total_steps=1), run_config(tmp_path))

    verdicts = {finding.check: finding.verdict for finding in found if finding.level == "fatal"}
    assert exit_code(found) == 2
    assert said in verdicts[check]


def test_without_any_decision_truth_both_the_cause_and_the_consequence_are_told(tmp_path):
    bare = {key: value for key, value in CONTINUE.items() if key != "decision_truth"}

    found = judged(tmp_path, bare, {**bare, "cid": "2_0"})

    assert "2 tasks have no decision_truth and count as continue" in found["decision_truth"].verdict
    assert found["decisions"].level == "fatal"


def test_a_run_that_can_start_has_nothing_fatal(machine, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    (tmp_path / "train.jsonl").write_text(f"{json.dumps(CONTINUE)}\n{json.dumps(STOP)}\n")
    model = model_folder(tmp_path / "m")
    good = settings(model_path=str(model), data=tmp_path, grader="offline", inference_engine_num=1)

    found = preflight(good, run_config(tmp_path))

    assert exit_code(found) == 0, found
    assert [finding.check for finding in found if finding.level == "warning"] == [
        "prompt lengths",  # no tokenizer
        "attention",  # no flash_attn
    ]


def test_on_tinker_gpus_disk_and_weights_are_not_asked_for(machine, tmp_path):
    found = preflight(settings(data=tmp_path / "none", grader="offline"), run_config(tmp_path, tinker=True))

    names = {finding.check for finding in found}
    assert "tinker key" in names
    assert not names & {"gpus", "disk", "grader model"}


def test_a_check_that_breaks_does_not_stop_the_others(machine, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("oops")

    monkeypatch.setattr(checks, "scan_dataset", broken)
    (tmp_path / "train.jsonl").write_text("x")

    found = preflight(settings(data=tmp_path, grader="offline"), run_config(tmp_path))

    assert found[0] == Finding("warning", "dataset", "could not be checked: oops")
    assert found[-1].check == "grader"


def test_the_result_or_error_of_a_timed_call_comes_through():
    assert within(30, lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        within(30, lambda: int("no"))
