"""The preflight as a whole: everything at once, and one broken check does not stop the others."""

import json

import pytest
from preflight_inputs import CONTINUE, DOCTOR, PATIENT, STOP, model_folder, run_config, settings

from tuner.learn_to_ask.training.preflight import run as checks
from tuner.learn_to_ask.training.preflight.findings import Finding, exit_code, print_findings, within
from tuner.learn_to_ask.training.preflight.run import preflight
from tuner.learn_to_ask.training.resume import identity, record


def test_everything_that_is_wrong_is_told_at_once(machine, tmp_path, capsys):
    endpoint = {"grader": "openai", "grader_base_url": "http://127.0.0.1:1/v1", "grader_model": "judge"}
    wrong = settings(model_path=str(tmp_path / "gone"), data=tmp_path / "none.jsonl", **endpoint)

    found = preflight(wrong, run_config(tmp_path))

    fatal = {finding.check for finding in found if finding.level == "fatal"}
    assert fatal >= {"dataset", "policy", "gpus", "grader"}
    assert exit_code(found) == 2
    print_findings(found)
    assert f"preflight: {len(found)} findings, {len(fatal)} fatal" in capsys.readouterr().out
    assert all("\n" not in finding.verdict for finding in found)


def test_an_openai_grader_without_an_endpoint_is_told_by_flag(machine, tmp_path):
    found = preflight(settings(grader="openai"), run_config(tmp_path))

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
