"""When the `openai` engine ends a run, what it says then, and that it never says the key."""

import os

import pytest
from fault_server import (
    GOOD,
    Fault,
    FaultServer,
    http_error,
    in_order,
)
from openai_runs import KEY, SAMPLING, answers, conversations

from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine
from tuner.learn_to_ask.errors import UserError


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "OPENAI_API_KEY"),
        (403, "OPENAI_API_KEY"),
        (404, "base URL .* model name m"),
        (402, "balance"),
        (308, "base URL"),
    ],
)
def test_given_a_hopeless_status_in_mid_run_when_it_comes_then_the_run_stops_and_says_what_to_do(
    make_engine, status, advice
):
    with FaultServer(lambda call: http_error(status, "no way") if call.index >= 10 else GOOD) as server:
        replies = make_engine(server).generate(conversations(1000), SAMPLING)
        kept = []
        with pytest.raises(UserError, match=rf"HTTP {status}: no way - .*{advice}.*--resume") as caught:
            kept += replies
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert server.received < 20


def test_given_requests_under_way_when_the_run_stops_then_their_answers_are_kept(make_engine):
    def plan(call):
        if call.text in ("q0", "q1"):
            return Fault(delay=0.5)
        return http_error(500) if call.text == "q2" else Fault(status=401, delay=0.02)

    with FaultServer(plan) as server:
        replies = make_engine(server, backoff_base=60.0).generate(conversations(1000), SAMPLING)
        kept = []
        with pytest.raises(UserError, match="HTTP 401"):
            for reply in replies:
                kept.append(reply.key)
    assert (sorted(kept), server.received) == ([0, 1], 4 + 2 + 1)  # three refusals, and a question of our own


def test_given_no_credit_when_answered_429_then_the_run_stops_at_once(make_engine):
    fault = Fault(status=429, body=b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}')
    with FaultServer(lambda _: fault) as server, pytest.raises(UserError, match=r"exceeded your quota.*balance"):
        answers(make_engine(server, concurrency=1), 5)
    assert server.received == 3 + 1


def test_given_a_retry_after_of_hours_when_answered_then_the_run_stops_at_once(make_engine):
    with (
        FaultServer(lambda _: http_error(429, "tomorrow", Retry_After="7200")) as server,
        pytest.raises(UserError, match=r"tomorrow.*wait 7200 s.*--resume"),
    ):
        answers(make_engine(server, concurrency=1), 5)


def test_given_400_to_the_first_requests_when_none_was_answered_then_the_run_stops(make_engine):
    with (
        FaultServer(lambda _: http_error(400, "Unrecognized argument: repetition_penalty")) as server,
        pytest.raises(UserError, match=r"HTTP 400: Unrecognized argument: repetition_penalty - .*extra_body"),
    ):
        answers(make_engine(server), 1000)
    assert server.received <= 20  # each at most twice, the second time without the field


def test_given_a_400_for_single_requests_when_others_are_answered_then_only_these_fail(make_engine, capsys):
    bad = {"q0": "This model's maximum context length is 8192 tokens", "q7": "odd request"}
    with FaultServer(lambda call: http_error(400, bad[call.text]) if call.text in bad else GOOD) as server:
        replies = answers(make_engine(server), 20)
    assert {key: reply.error for key, reply in replies.items() if reply.error} == {
        0: "prompt too long (HTTP 400)",
        7: "HTTP 400",
    }
    assert server.received == 20
    assert (
        capsys.readouterr().err.count("refused a request: prompt too long (HTTP 400): This model's maximum context")
        == 1
    )


def test_given_only_requests_that_are_too_long_when_asked_then_each_fails_and_nothing_stops(make_engine):
    with FaultServer(lambda _: http_error(400, "maximum context length is 10 tokens")) as server:
        replies = answers(make_engine(server), 60)
    assert [reply.error for reply in replies.values()] == ["prompt too long (HTTP 400)"] * 60


@pytest.mark.parametrize("good_first", [0, 45])
def test_given_a_server_that_breaks_down_when_the_window_has_failed_then_the_run_stops(make_engine, good_first):
    with FaultServer(lambda call: http_error(500, "boom") if call.index >= good_first else GOOD) as server:
        replies = make_engine(server, max_retries=1).generate(conversations(10_000), SAMPLING)
        kept = []
        with pytest.raises(UserError, match=r"of the last \d+ requests failed .* HTTP 500: boom - .*--resume"):
            for reply in replies:
                kept.append(reply.error)
    assert kept == [""] * good_first, "failures of a dead server must not pass for results"
    assert server.received < 300


def test_given_failures_before_an_answer_when_it_comes_then_they_are_yielded_as_errors(make_engine):
    with FaultServer(lambda call: http_error(500) if call.index < 10 else GOOD) as server:
        replies = list(make_engine(server, concurrency=1, max_retries=0).generate(conversations(12), SAMPLING))
    assert [reply.error for reply in replies] == ["HTTP 500"] * 10 + ["", ""]


def test_given_no_answer_to_the_last_requests_when_a_server_responds_then_they_are_yielded_as_errors(make_engine):
    with FaultServer(lambda _: http_error(500)) as server:
        assert [reply.error for reply in answers(make_engine(server, max_retries=0), 3).values()] == ["HTTP 500"] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_given_a_server_that_echoes_the_key_when_anything_is_said_then_the_key_is_not(make_engine, capfd, status):
    echo = "x" * 280 + f" Bearer {KEY} {KEY}\x1b[31m\n" + "y" * 5000
    with FaultServer(lambda _: http_error(status, echo)) as server, pytest.raises(UserError) as caught:
        answers(make_engine(server, max_retries=0), 100)
    said = str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    printed = capfd.readouterr()
    for text in (said, printed.out, printed.err):
        assert KEY[:8] not in text
        assert "\x1b" not in text
        assert len(text) < 2000
    assert "***" in said


def test_given_a_model_that_repeats_the_key_when_it_answers_then_the_reply_does_not_hold_it(make_engine):
    with FaultServer(answer=lambda _: f"your key is {KEY}") as server:
        engine = make_engine(server)
        assert answers(engine, 1)[0].texts == ["your key is ***"]
    assert KEY not in engine.description + repr(engine)


def test_given_no_key_when_the_server_is_remote_then_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match="set MY_KEY"):
        OpenAIEngine(Endpoint(base_url="https://api.example.com/v1", model="m", api_key_env="MY_KEY"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "a.localhost"])
def test_given_no_key_when_the_server_is_local_then_none_is_needed(make_engine, host, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert make_engine(f"http://{host}:8000/v1/").description == f"openai:m@http://{host}:8000/v1"


def test_given_no_key_when_a_local_server_is_asked_then_no_key_is_sent_and_no_proxy_used(make_engine, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with FaultServer() as server:
        assert answers(make_engine(server), 1)[0].texts == ["re: q0"]
    assert "authorization" not in server.calls[0].headers


@pytest.mark.parametrize("odd", ["sk-secret value", "sk-secret\u2013dash", "sk-secret\nX: y", "sk-\udc80secret"])
def test_given_a_key_that_no_header_can_hold_when_built_then_the_error_does_not_show_it(monkeypatch, odd):
    monkeypatch.setattr(os, "environ", {"OPENAI_API_KEY": odd})
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        OpenAIEngine(Endpoint(base_url="https://api.example.com/v1", model="m"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "api.example.com/v1", "ftp://pa55word@x/v1", "http://", "http://u:pa55word@x:y"])
def test_given_a_url_that_cannot_be_used_when_built_then_the_error_shows_how_one_looks(url):
    with pytest.raises(UserError, match="http://localhost:8000/v1") as caught:
        OpenAIEngine(Endpoint(base_url=url, model="m"))
    assert "pa55word" not in str(caught.value)


def test_given_credentials_in_the_url_when_asked_then_they_are_sent_and_never_shown(make_engine, monkeypatch, caplog):
    monkeypatch.delenv("OPENAI_API_KEY")
    caplog.set_level("DEBUG")
    with FaultServer(in_order(then=http_error(401, "not pa55word"))) as server:
        url = server.base_url.replace("//", "//user:pa55word@") + "?api-version=pre"
        engine = make_engine(url)
        with pytest.raises(UserError, match=r"not \*\*\*") as caught:
            answers(engine, 1)
    assert server.calls[0].headers["authorization"].startswith("Basic ")
    assert server.calls[0].path == "/v1/chat/completions?api-version=pre"
    assert engine.description == f"openai:m@{server.base_url}"
    assert "pa55word" not in str(caught.value) + caplog.text


def test_given_no_extra_body_when_described_then_a_resume_can_tell_the_difference(make_engine):
    url = "http://localhost:1/v1"
    assert make_engine(url).description != make_engine(url, extra_body=False).description
