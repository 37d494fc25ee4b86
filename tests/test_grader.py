"""The openai grader of training against a faulty server, through the judge that training uses."""

import asyncio

import pytest
from fault_server import CUT, GOOD, NULL_CONTENT, FaultServer, http_error, in_order

from tuner.learn_to_ask import main
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.grader import GradingError

TASK = {
    "cid": "7_1",
    "messages": [{"role": "user", "content": "i have a cough"}],
    "decision_truth": "continue",
    "info_truth": "symptom nature: dry cough",
}
GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"
SECRET = "sk-nobody-may-read-this"


def judge(server, response="Is it dry?"):
    from agentscope.message import Msg

    settings = main.TrainingSettings(
        grader="openai", grader_base_url=server.base_url, grader_model="judge-32b", grader_api_key_env="GRADER_KEY"
    )
    return asyncio.run(main.make_judge(settings)(TASK, Msg("doctor", response, "assistant"), {}))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("GRADER_KEY", SECRET)


def test_the_endpoint_grades_with_the_key_the_model_and_the_temperature_of_the_settings():
    with FaultServer(answer=lambda messages: GRADE) as server:
        output = judge(server)

        [call] = server.calls
    assert output.metrics == {
        "reward": 3.0,
        "action_score": 1.0,
        "content_score": 0.5,
        "format_score": 1.0,
        "stopped_when_to_continue": 0.0,
    }
    assert call.headers["authorization"] == f"Bearer {SECRET}"
    assert (call.body["model"], call.body["temperature"]) == ("judge-32b", 0.7)
    assert call.text.splitlines()[-1] == "doctor: Is it dry?"


@pytest.mark.parametrize(
    "fault", [http_error(429, Retry_After="0"), http_error(500), http_error(502), CUT], ids=["429", "500", "502", "cut"]
)
def test_a_passing_fault_is_ridden_out(fault):
    with FaultServer(in_order(fault, then=GOOD), answer=lambda messages: GRADE) as server:
        assert judge(server).reward == 3.0
        assert server.received == 2


def test_an_empty_answer_is_asked_for_again():
    with FaultServer(in_order(NULL_CONTENT, then=GOOD), answer=lambda messages: GRADE) as server:
        assert judge(server).reward == 3.0


def test_prose_instead_of_scores_is_an_error_and_never_a_zero():
    with FaultServer(answer=lambda messages: "a fine question") as server:
        with pytest.raises(GradingError, match="3 tries"):
            judge(server)
        assert server.received == 3


def test_a_refused_key_is_an_error_that_does_not_show_it():
    with FaultServer(lambda call: http_error(401, f"bad key {SECRET}")) as server, pytest.raises(GradingError) as error:
        judge(server)

    assert SECRET not in str(error.value)


def test_stop_decisions_cost_no_call():
    with FaultServer(answer=lambda messages: GRADE) as server:
        assert judge(server, "<stop />").reward == 0.0
        assert server.received == 0


@pytest.mark.parametrize("missing", ["grader_base_url", "grader_model"])
def test_a_missing_endpoint_is_named_before_anything_starts(missing, tmp_path):
    from tuner.learn_to_ask.config_file import RunConfig

    given = {"grader_base_url": "http://127.0.0.1:1/v1", "grader_model": "judge", missing: ""}
    config = RunConfig(raw={}, tinker=False, base_url=None, ray_address=None, job_folder=tmp_path)

    with pytest.raises(UserError, match=f"--{missing}: the openai grader needs it"):
        main.train(main.TrainingSettings(grader="openai", **given), config)
