"""config.yaml: one home for every setting, and clear errors for what cannot be used."""

from pathlib import Path

import pytest
import yaml

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.config_file import HOMES, SECRETS, read_config, write_effective_config

RECIPE = Path(__file__).parents[2] / "tuner" / "learn_to_ask"


def config_with(key: str, value: object) -> dict:
    config: dict = {"project": "p", "name": "n"}
    *parents, last = key.split(".")
    branch = config
    for parent in parents:
        branch = branch.setdefault(parent, {})
    branch[last] = value
    return config


def write(path: Path, config: object) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("key", sorted(HOMES))
def test_a_key_that_tune_would_overwrite_is_refused_and_its_home_named(key, tmp_path):
    file = write(tmp_path / "config.yaml", config_with(key, 1))

    with pytest.raises(UserError) as error:
        read_config(file)

    assert key in str(error.value)
    assert HOMES[key] in str(error.value)


def test_the_default_config_keeps_tinker_off_and_leaves_ray_open(monkeypatch, tmp_path):
    monkeypatch.delenv("TRINITY_CHECKPOINT_ROOT_DIR", raising=False)
    monkeypatch.chdir(tmp_path)

    config = read_config(RECIPE / "config.yaml")

    assert not config.tinker
    assert config.ray_address is None
    assert config.job_folder == tmp_path / "checkpoints" / "Learn2Ask" / "learn2ask_rft"


def test_switching_tinker_on_is_one_edit(tmp_path):
    text = (RECIPE / "config.yaml").read_text()
    assert text.count("enable: false") == 1
    (tmp_path / "config.yaml").write_text(text.replace("enable: false", "enable: true"))

    assert read_config(tmp_path / "config.yaml").tinker


def test_checkpoints_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TRINITY_CHECKPOINT_ROOT_DIR", str(tmp_path / "elsewhere"))

    config = read_config(RECIPE / "config.yaml")

    assert config.job_folder == tmp_path / "elsewhere" / "Learn2Ask" / "learn2ask_rft"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "mapping"),
        ("a: [1, 2", "no YAML"),
        ("", "mapping"),
        ("checkpoint_root_dir: ${oc.env:NOT_SET_ANYWHERE}\n", "NOT_SET_ANYWHERE"),
    ],
)
def test_an_unusable_file_is_named_with_the_reason(text, said, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text)

    with pytest.raises(UserError, match=said) as error:
        read_config(file)

    assert str(file) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--config .*gone\.yaml"):
        read_config(tmp_path / "gone.yaml")


def test_the_effective_config_is_the_users_with_cluster_and_operator_filled_in(tmp_path):
    own = {"name": "reward_filter", "args": {"threshold": 1.0}}
    file = write(
        tmp_path / "config.yaml",
        {
            "project": "p",
            "name": "${oc.env:HOME}",
            "cluster": {"node_num": 2},
            "explorer": {"max_timeout": 7},
            "data_processor": {"experience_pipeline": {"save_input": False, "operators": [own]}},
        },
    )
    config = read_config(file)

    write_effective_config(config, tmp_path / "effective.yaml", ray_address="local", rollouts=320, flash_attention=True)

    assert config.rollout_seconds == 7.0
    left_out = {"name": "tuner.learn_to_ask.training.failed_rollouts.LeaveOutFailedRollouts", "args": {"rollouts": 320}}
    counted = {
        "name": "tuner.learn_to_ask.training.token_counts.CountTokens",
        "args": {"training_passes": 1, "reference": False},
    }
    assert yaml.safe_load((tmp_path / "effective.yaml").read_text()) == {
        "project": "p",
        "name": "${oc.env:HOME}",
        "cluster": {"node_num": 2, "ray_address": "local"},
        "explorer": {"max_timeout": 7},
        "data_processor": {"experience_pipeline": {"save_input": False, "operators": [left_out, counted, own]}},
    }


def test_a_run_that_trinity_would_rename_behind_our_back_is_refused(tmp_path):
    file = write(tmp_path / "config.yaml", {"name": "n", "continue_from_checkpoint": False})

    with pytest.raises(UserError, match=r"continue_from_checkpoint: false .* new `name`"):
        read_config(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "explorer: {runner_per_modle: 8}",
            "explorer.runner_per_modle: unknown key, did you mean explorer.runner_per_model?",
            id="a typo",
        ),
        pytest.param("explorr: {max_timeout: 8}", "explorr: unknown key, did you mean explorer?", id="a wrong section"),
        pytest.param(
            "explorer: {sync_interval: 8}",
            "explorer.sync_interval: unknown key, did you mean synchronizer.sync_interval?",
            id="a key of another section",
        ),
        pytest.param(
            "model: {modelpath: m}",
            "did you mean model.model_path? Its home is --model_path",
            id="a typo of a key that would be refused too",
        ),
        pytest.param(
            "model: {lora_configs: [{lora_rnk: 8}]}",
            "model.lora_configs.lora_rnk: unknown key, did you mean model.lora_configs.lora_rank?",
            id="a typo inside a list",
        ),
        pytest.param("zzz: blue", "zzz: unknown key; there are algorithm, buffer,", id="like no key at all"),
        pytest.param("explorer: {max_timeout: soon}", "explorer.max_timeout: Value 'soon'", id="text for a number"),
        pytest.param(
            "trainer: {use_dynamic_bsz: maybe}", "trainer.use_dynamic_bsz: Value 'maybe'", id="no truth value"
        ),
        pytest.param(
            "synchronizer: {sync_method: ncl}", "expected one of [NCCL, CHECKPOINT, MEMORY]", id="no such choice"
        ),
        pytest.param(
            "monitor: {monitor_type: tensorbord}",
            "monitor.monitor_type 'tensorbord' is none of tensorboard, wandb, mlflow, swanlab",
            id="no such choice among texts",
        ),
        pytest.param("explorer: {max_timeout: }", "explorer.max_timeout: has no value", id="a key without value"),
        pytest.param("cluster:", "cluster: has no value; give it one or remove the key", id="an empty section"),
        pytest.param(
            "explorer: 3", "explorer: keys of its own are expected below it, not 3", id="a value for a section"
        ),
        pytest.param("model: {tinker: true}", "model.tinker: keys of its own", id="a switch for a section"),
    ],
)
def test_what_trinity_would_refuse_is_found_before_the_start_with_file_and_key(text, said, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"{text}\n")

    with pytest.raises(UserError) as error:
        read_config(file)

    assert str(error.value).startswith(f"--config {file}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_everything_wrong_with_the_file_is_told_at_once(tmp_path):
    file = write(tmp_path / "config.yaml", {"explorer": {"max_timout": 1, "runner_per_model": None}, "nme": "x"})

    with pytest.raises(UserError) as error:
        read_config(file)

    assert all(key in str(error.value) for key in ("explorer.max_timout", "explorer.runner_per_model", "nme"))


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"tinker": {"base_url": None}}},
        {"trainer": {"max_checkpoints_to_keep": None}},
        {"monitor": {"monitor_args": {"anything": 1}}},
        {"buffer": {"explorer_input": {"taskset": {"workflow_args": {"anything": {"deep": 1}}}}}},
        {"synchronizer": {"sync_method": "nccl"}},
        {"explorer": {}},
    ],
)
def test_null_where_it_means_something_and_open_sections_are_left_alone(config, tmp_path):
    assert read_config(write(tmp_path / "config.yaml", config)).raw == config


@pytest.mark.parametrize(
    ("key", "variable"),
    [*SECRETS.items(), ("explorer.env_vars.GRADER_API_KEY", "in the environment before Ray starts")],
)
def test_no_key_stands_in_the_file_because_trinity_logs_its_whole_config(key, variable, tmp_path):
    file = write(tmp_path / "config.yaml", config_with(key, "tml-secret"))

    with pytest.raises(UserError, match="it would be logged") as error:
        read_config(file)

    assert key in str(error.value)
    assert variable in str(error.value)
    assert "tml-secret" not in str(error.value)


def test_harmless_variables_of_the_workers_may_stand_in_the_file(tmp_path):
    file = write(tmp_path / "config.yaml", config_with("explorer.env_vars.TOKENIZERS_PARALLELISM", "false"))

    assert read_config(file).monitor == "tensorboard"


def test_the_monitor_is_one_key(tmp_path):
    assert (
        read_config(write(tmp_path / "config.yaml", config_with("monitor.monitor_type", "mlflow"))).monitor == "mlflow"
    )


def test_a_value_from_the_environment_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SECONDS", "many")
    file = write(tmp_path / "config.yaml", {"explorer": {"max_timeout": "${oc.env:SECONDS}"}})

    with pytest.raises(UserError, match="max_timeout: Value 'many'"):
        read_config(file)


@pytest.mark.slow
def test_a_typo_in_the_settings_of_verl_is_found_too(tmp_path):
    settings = {"actor_rollout_ref": {"actor": {"fsdp_config": {"offload_polcy": True}}}}
    file = write(tmp_path / "config.yaml", {"trainer": {"trainer_config": settings}})

    with pytest.raises(UserError, match=r"fsdp_config\.offload_polcy: unknown key, did you mean .*\.offload_policy\?"):
        read_config(file)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["config.yaml", "quickstart/config.yaml"])
def test_trinity_itself_accepts_the_shipped_configs(path, monkeypatch):
    from trinity.common.config import load_config

    monkeypatch.setenv("TRINITY_CHECKPOINT_ROOT_DIR", "/nowhere")
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LEARN2ASK_SEED", "3")

    config = load_config(str(RECIPE / path))

    assert config.explorer.concurrent_mode == "asynchronous"
    assert config.explorer.max_timeout > 0


# --- engines


def test_what_tune_has_no_argument_for_is_handed_to_the_engines(tmp_path):
    """Given dtype and enforce_eager in the file, when it is read, then they are kept for main.py and not for tune()."""
    explorer = {"rollout_model": {"dtype": "float16"}, "auxiliary_models": [{"enforce_eager": True}]}
    config = read_config(write(tmp_path / "config.yaml", {"explorer": explorer}))
    effective = tmp_path / "effective.yaml"

    write_effective_config(config, effective, ray_address="local", rollouts=1, flash_attention=True)

    assert config.engines == ({"dtype": "float16"}, {"enforce_eager": True})
    assert yaml.safe_load(effective.read_text())["explorer"] == {}


@pytest.mark.parametrize(
    ("explorer", "said"),
    [
        ({"rollout_model": {"engine_num": 2}}, "rollout_model.engine_num, .* --inference_engine_num"),
        ({"auxiliary_models": [{"engine_num": 2}]}, "auxiliary_models.engine_num, .* --auxiliary_engine_num"),
        ({"auxiliary_models": [{}, {}]}, "one entry for the one grader is expected, not 2"),
        ({"rollout_model": {"dtyp": "float16"}}, "explorer.rollout_model.dtyp: unknown key, did you mean"),
    ],
)
def test_an_engines_key_with_a_home_elsewhere_is_refused(explorer, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_config(write(tmp_path / "config.yaml", {"explorer": explorer}))


def test_without_flash_attention_only_what_the_file_leaves_open_is_filled_in(tmp_path):
    model = {"use_remove_padding": False, "override_config": {"attn_implementation": "eager"}}
    given = {"trainer": {"trainer_config": {"actor_rollout_ref": {"model": model}}}}
    for name, raw, attention in (("open", {"trainer": {"use_dynamic_bsz": True}}, "sdpa"), ("given", given, "eager")):
        effective = tmp_path / f"{name}.effective.yaml"
        config = read_config(write(tmp_path / f"{name}.yaml", raw))

        write_effective_config(config, effective, ray_address="local", rollouts=1, flash_attention=False)

        trainer = yaml.safe_load(effective.read_text())["trainer"]
        found = trainer["trainer_config"]["actor_rollout_ref"]["model"]
        assert found == {"use_remove_padding": False, "override_config": {"attn_implementation": attention}}
        assert trainer.get("use_dynamic_bsz") == raw["trainer"].get("use_dynamic_bsz")


def test_the_name_of_a_run_is_where_trinity_keeps_its_actors(tmp_path):
    given = {"project": "P", "group": "g", "name": "n"}

    assert read_config(write(tmp_path / "config.yaml", given)).namespace == "P/n"
    assert read_config(write(tmp_path / "config.yaml", {**given, "ray_namespace": "own"})).namespace == "own"
