"""What main.py makes of a training run that tune() reports as finished, whatever became of it."""

import json

import pytest

from tuner.learn_to_ask import main
from tuner.learn_to_ask.engines.chat import Fitting
from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.money import Money

TASK = {"cid": "1_0", "session_id": "1", "messages": [{"role": "user", "content": "it hurts"}], "info_truth": "x: y"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains for two steps with a tune() that only notes its arguments and the step it got to."""
    import agentscope.tuner

    (tmp_path / "train.jsonl").write_text(json.dumps(TASK) + "\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    config = RunConfig(raw={}, tinker=False, base_url=None, ray_address="local", job_folder=tmp_path / "job")

    def start(reached, **settings):
        seen = {}

        def tune(**arguments):
            seen.update(arguments)
            if reached is not None:
                (config.job_folder / "latest_checkpointed_iteration.txt").write_text(str(reached))

        monkeypatch.setattr(agentscope.tuner, "tune", tune)
        monkeypatch.setattr(main, "of_tokenizer", lambda *_, **__: ((), Fitting.NONE))
        given = {"data": tmp_path, "model_path": str(tmp_path / "model"), "total_steps": 2, "batch_size": 1, **settings}
        return main.train(main.TrainingSettings(**given), config, Money()), seen

    return start


@pytest.mark.parametrize(("reached", "code"), [(2, 0), (1, 1), (None, 1)])
def test_the_last_checkpoint_decides_since_tune_swallows_the_errors_of_its_actors(run, reached, code, capsys):
    assert run(reached)[0] == code

    printed = capsys.readouterr()
    assert f"{reached or 0} of 2" in printed.out
    assert ("stopped early" in printed.err) == bool(code)


def test_checkpoints_really_come_every_90_steps_though_tune_overwrites_the_yaml(run):
    _, seen = run(2)

    assert seen["algorithm"].save_interval_steps == 90
    assert seen["algorithm"].algorithm_type == "grpo"


def test_no_model_is_left_with_the_reasoning_parser_that_swallows_qwens_answers(run):
    _, seen = run(2)

    assert seen["model"].reasoning_parser == ""
    assert [model.reasoning_parser for model in seen["auxiliary_models"].values()] == [""]
    assert list(seen["auxiliary_models"]) == ["auxiliary_model"]


def test_an_external_grader_takes_no_gpus(run):
    _, seen = run(2, grader="openai", grader_base_url="http://127.0.0.1:1/v1", grader_model="judge")

    assert seen["auxiliary_models"] == {}
