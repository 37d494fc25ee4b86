"""config.yaml: one home for every setting, and clear errors for what cannot be used."""

from pathlib import Path

import pytest
import yaml

from tuner.learn_to_ask.config_file import HOMES, read_config, write_effective_config
from tuner.learn_to_ask.errors import UserError

RECIPE = Path(__file__).parents[1] / "tuner" / "learn_to_ask"


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

    write_effective_config(config, tmp_path / "effective.yaml", ray_address="local", rollouts=320)

    assert config.rollout_seconds == 7.0
    left_out = {"name": "tuner.learn_to_ask.failed_rollouts.LeaveOutFailedRollouts", "args": {"rollouts": 320}}
    assert yaml.safe_load((tmp_path / "effective.yaml").read_text()) == {
        "project": "p",
        "name": "${oc.env:HOME}",
        "cluster": {"node_num": 2, "ray_address": "local"},
        "explorer": {"max_timeout": 7},
        "data_processor": {"experience_pipeline": {"save_input": False, "operators": [left_out, own]}},
    }


def test_a_run_that_trinity_would_rename_behind_our_back_is_refused(tmp_path):
    file = write(tmp_path / "config.yaml", {"name": "n", "continue_from_checkpoint": False})

    with pytest.raises(UserError, match=r"continue_from_checkpoint: false .* new `name`"):
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
