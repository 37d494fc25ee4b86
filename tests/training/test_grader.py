"""The openai grader of training against a faulty server, through the judge that training uses."""

import asyncio
import math
import subprocess
import sys
from pathlib import Path

import pytest
from fault_server import CUT, GOOD, HANG, NULL_CONTENT, FaultServer, http_error, in_order

from tuner.learn_to_ask import main
from tuner.learn_to_ask.training.grader import GradingError, ask_grader

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
        "said_nothing": 0.0,
        "grader_failures": 0.0,
        # a word is a token: both messages as they were sent, and the grade
        "grader_prompt_tokens": sum(len(message["content"].split()) for message in call.body["messages"]),
        "grader_answer_tokens": len(GRADE.split()),
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


def test_prose_instead_of_scores_leaves_the_rollout_without_a_reward_and_never_with_a_zero():
    with FaultServer(answer=lambda messages: "a fine question") as server:
        output = judge(server)

        assert math.isnan(output.reward)
        assert output.metrics["grader_failures"] == 1.0
        assert server.received == 3


def test_a_refused_key_is_reported_without_showing_it(capsys):
    with FaultServer(lambda call: http_error(401, f"bad key {SECRET}")) as server:
        assert math.isnan(judge(server).reward)
        assert server.received == 1

    printed = capsys.readouterr().err
    assert "HTTP 401" in printed
    assert SECRET not in printed


def test_an_endpoint_that_hangs_is_given_up_in_time():
    with FaultServer(lambda call: HANG, answer=lambda messages: GRADE) as server:
        settings = main.TrainingSettings(
            grader="openai", grader_base_url=server.base_url, grader_model="judge-32b", grader_api_key_env="GRADER_KEY"
        )

        with pytest.raises(GradingError, match=r"within 0\.1 s"):
            asyncio.run(ask_grader([], {}, settings.grader_settings(rollout_seconds=0.2)))


def test_stop_decisions_cost_no_call():
    with FaultServer(answer=lambda messages: GRADE) as server:
        assert judge(server, "<stop />").reward == 0.0
        assert server.received == 0


GRADES_ONCE = """
import asyncio, sys
from tuner.learn_to_ask.training.grader import ask_grader
from tuner.learn_to_ask.training.settings import TrainingSettings
flags = {"grader": "openai", "grader_base_url": sys.argv[1], "grader_model": "m", "grader_api_key_env": "GRADER_KEY"}
asyncio.run(ask_grader([{"role": "user", "content": "hi"}], {}, TrainingSettings(**flags).grader_settings()))
"""


def test_a_process_that_has_graded_ends_without_a_word_about_its_connections():
    """Given a loop that ends as Trinity's do, without the client being closed, then nothing is said of it."""
    with FaultServer(answer=lambda messages: GRADE) as server:
        done = subprocess.run(
            [sys.executable, "-c", GRADES_ONCE, server.base_url],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, "")
