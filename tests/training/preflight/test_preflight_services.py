"""The preflight of services: monitor, Tinker, grader."""

import dataclasses
import json
import socket
import sys
from types import SimpleNamespace

import pytest
from fault_server import GOOD, Fault, FaultServer, http_error
from preflight_inputs import CONTINUE, GOOD_GRADE, run_config, settings

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.training.grader import GraderSettings
from tuner.learn_to_ask.training.preflight.services import check_grader, check_monitor, check_tinker, offered_models


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


# --- grader

TASK = Task(**CONTINUE)


def grader(name, **changes):
    return GraderSettings(grader=name, temperature=0.7, max_tokens=256, model="judge", **changes)


def test_the_offline_grader_is_tried():
    found = check_grader(grader("offline"), TASK)

    assert found.level == "ok"
    assert "format 1.0" in found.verdict


def test_the_auxiliary_grader_can_only_be_tried_later():
    assert check_grader(grader("auxiliary"), TASK).level == "ok"


def test_an_external_grader_gets_one_real_prompt():
    with FaultServer(answer=lambda _: GOOD_GRADE) as server:
        found = check_grader(grader("openai", base_url=server.base_url), TASK)

    assert found.verdict == "--grader openai answers: format 1.0, content 0.5"
    (call,) = server.calls
    assert "symptom: cough" in call.body["messages"][0]["content"]
    assert "patient: it hurts" in call.body["messages"][1]["content"]


def test_what_a_server_refused_by_name_is_told_with_what_was_done():
    def plan(call):
        return http_error(400, "Unsupported parameter: 'max_tokens'") if "max_tokens" in call.body else GOOD

    with FaultServer(plan, answer=lambda _: GOOD_GRADE) as server:
        found = check_grader(grader("openai", base_url=server.base_url), TASK)

    assert (found.level, "max_tokens goes as max_completion_tokens" in found.verdict) == ("ok", True)


def test_a_grader_that_answers_in_prose_is_fatal_and_quoted():
    with FaultServer(answer=lambda _: "I like\nit") as server:
        found = check_grader(grader("openai", base_url=server.base_url), TASK)

    assert found.level == "fatal"
    assert r"'I like\nit'" in found.verdict


def test_a_grader_that_fails_is_fatal_in_its_servers_words():
    with FaultServer(lambda _: http_error(402, "Insufficient credits")) as server:
        found = check_grader(grader("openai", base_url=server.base_url), TASK)

    assert found.level == "fatal"
    assert "Insufficient credits - check the balance" in found.verdict


def test_a_grader_whose_key_cannot_be_used_is_fatal_and_the_key_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk secret")

    found = check_grader(grader("openai", base_url="https://api.example.com/v1"), TASK)

    assert (found.level, "OPENAI_API_KEY holds spaces" in found.verdict) == ("fatal", True)
    assert "secret" not in found.verdict
