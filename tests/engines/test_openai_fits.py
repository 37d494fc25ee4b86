"""The `openai` engine with servers as they are: what each refuses, sends and means, one short test a kind."""

import json
from dataclasses import replace

import pytest
from fault_server import GOOD, Fault, FaultServer, http_error
from openai_runs import KEY, SAMPLING, answers

from tuner.learn_to_ask.engines.base import Sampling, as_asked, not_applied
from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine
from tuner.learn_to_ask.errors import UserError


def completion(**choice):
    """A body with one choice."""
    return Fault(body=json.dumps({"choices": [{"index": 0, "finish_reason": "stop", **choice}]}).encode())


def failure(body, status=200):
    return Fault(status=status, body=json.dumps(body).encode())


def texts(engine, count=1, sampling=SAMPLING):
    return [reply.texts or reply.error for _, reply in sorted(answers(engine, count, sampling).items())]


# --- the request fits the server


@pytest.mark.parametrize(
    ("refused", "message", "sent_then"),
    [
        (
            lambda body: "max_tokens" in body,
            "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead.",
            {"max_completion_tokens": 64, "max_tokens": None},
        ),
        (
            lambda body: "temperature" in body,
            "Unsupported value: 'temperature' does not support 0.7. Only the default (1) value is supported.",
            {"temperature": None, "top_p": 0.9},
        ),
        (
            lambda body: {"temperature", "top_p"} <= body.keys(),
            "`temperature` and `top_p` cannot both be specified for this model.",
            {"temperature": 0.7, "top_p": None},
        ),
        (
            lambda body: "repetition_penalty" in body or "chat_template_kwargs" in body,
            "Unrecognized request arguments supplied: chat_template_kwargs, repetition_penalty",
            {"repetition_penalty": None, "chat_template_kwargs": None},
        ),
        (
            lambda body: "repetition_penalty" in body or "chat_template_kwargs" in body,
            "Extra inputs are not permitted",
            {"repetition_penalty": None, "chat_template_kwargs": None},
        ),
        (
            lambda body: body.get("enable_thinking") is not False,
            "parameter.enable_thinking must be set to false for non-streaming calls",
            {"enable_thinking": False},
        ),
    ],
)
def test_what_a_server_refuses_by_name_is_changed_once_for_the_whole_run_and_said(
    make_engine, capsys, refused, message, sent_then
):
    with FaultServer(lambda call: http_error(400, message) if refused(call.body) else GOOD) as server:
        engine = make_engine(server, concurrency=1)
        assert texts(engine, 3) == [["re: q0"], ["re: q1"], ["re: q2"]]
    assert {name: server.calls[-1].body.get(name) for name in sent_then} == sent_then
    assert server.received == 3 + 1
    assert [line.endswith("for this run") for line in capsys.readouterr().err.splitlines()] == [True]


def test_a_schema_that_names_the_field_in_its_details_is_understood(make_engine):
    detail = {"detail": [{"type": "extra_forbidden", "loc": ["body", "repetition_penalty"], "msg": "Extra inputs"}]}
    plan = lambda call: failure(detail, 422) if "repetition_penalty" in call.body else GOOD  # noqa: E731
    with FaultServer(plan) as server:
        assert texts(make_engine(server)) == [["re: q0"]]


def test_a_value_out_of_its_range_is_not_left_out_but_told(make_engine):
    with (
        FaultServer(lambda _: http_error(400, "temperature must be between 0 and 0.5")) as server,
        pytest.raises(UserError, match=r"between 0 and 0.5 - .*--extra_json"),
    ):
        texts(make_engine(server))


def test_requests_under_way_together_learn_from_one_refusal(make_engine):
    plan = lambda call: http_error(400, "'max_tokens' is not supported") if "max_tokens" in call.body else GOOD  # noqa: E731
    with FaultServer(plan) as server:
        assert texts(make_engine(server, concurrency=4), 8) == [[f"re: q{index}"] for index in range(8)]
    assert server.received <= 8 + 4


def test_extra_json_adds_fields_and_drops_them_with_null(make_engine):
    with FaultServer() as server:
        texts(make_engine(server, extra_json='{"enable_thinking": false, "top_p": null, "temperature": 0.1}'))
    body = server.calls[0].body
    assert (body["enable_thinking"], body["temperature"], "top_p" in body) == (False, 0.1, False)


@pytest.mark.parametrize("text", ["{", "[1]", "nothing"])
def test_extra_json_that_is_no_object_is_named(text):
    with pytest.raises(UserError, match=r"--extra_json .*top_p"):
        OpenAIEngine(Endpoint(base_url="http://127.0.0.1/v1", model="m", extra_json=text))


def test_a_server_is_not_told_what_kind_of_machine_asks(make_engine):
    with FaultServer() as server:
        texts(make_engine(server))
    assert not [name for name in server.calls[0].headers if "os" in name.split("-") or "runtime" in name]


def test_azure_gets_its_key_in_its_own_header_and_its_query(make_engine):
    with FaultServer() as server:
        address = f"http://127.0.0.1:{server.port}/openai/deployments/d?api-version=2024-10-21"
        texts(make_engine(address))
        texts(make_engine(server, api_key_header="X-Key"))
    azure, own = server.calls
    assert (azure.path, azure.headers["api-key"]) == (
        "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        KEY,
    )
    assert "authorization" not in azure.headers
    assert (own.headers["x-key"], "authorization" in own.headers) == (KEY, False)


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1/", "socks5://127.0.0.1:1"])
def test_a_socks_proxy_is_named_in_one_line(monkeypatch, proxy):
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    with pytest.raises(UserError, match=r"ALL_PROXY speaks SOCKS.*NO_PROXY=api.example.com"):
        OpenAIEngine(Endpoint(base_url="https://api.example.com/v1", model="m"))


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used_with_its_password_which_is_not_shown(make_engine, monkeypatch, name):
    for other in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    with FaultServer(lambda call: http_error(401, "not pa55word") if call.index else GOOD) as proxy:
        monkeypatch.setenv(name.lower(), f"http://me:pa55word@127.0.0.1:{proxy.port}")
        engine = make_engine("http://api.example.com/v1")
        assert texts(engine) == [["re: q0"]]
        with pytest.raises(UserError, match=r"api\.example\.com answered HTTP 401: not \*\*\*"):
            texts(engine)
    assert proxy.calls[0].path == "http://api.example.com/v1/chat/completions"
    assert proxy.calls[0].headers["proxy-authorization"].startswith("Basic ")


# --- the answer is read in every common form


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"message": {"content": "hi"}}, "hi"),
        ({"message": {"content": ["h", {"type": "text", "text": "i"}]}}, "hi"),
        ({"message": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}]}}, "hi"),
        ({"message": {"content": "hi", "reasoning_content": "hm"}}, "hi"),
        ({"message": {"content": ""}}, ""),
        ({"text": "hi"}, "hi"),
    ],
    ids=["string", "parts", "reasoning in parts", "reasoning beside", "nothing said", "old completions"],
)
def test_every_form_of_an_answer_is_read(make_engine, choice, text):
    with FaultServer(lambda _: completion(**choice)) as server:
        assert answers(make_engine(server), 1)[0].texts == [text]


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (
            {"message": {"content": "", "reasoning_content": "hm"}, "finish_reason": "length"},
            "cut off at max_tokens, all of it reasoning",
        ),
        ({"message": {"content": None, "reasoning": "hm"}}, "no answer after its reasoning"),
        ({"message": {"content": None}, "finish_reason": "content_filter"}, "moderated"),
    ],
)
def test_an_answer_that_was_cut_off_is_a_failure_of_its_own_kind(make_engine, choice, reason):
    with FaultServer(lambda _: completion(**choice)) as server:
        reply = answers(make_engine(server), 1)[0]
    assert (reply.texts, reply.error, reply.final) == ([], reason, False)
    assert server.received == 1


def test_of_several_answers_those_that_were_cut_off_are_marked(make_engine):
    choices = [
        {"message": {"content": "a"}, "finish_reason": "stop"},
        {"message": {"content": "b and"}, "finish_reason": "length"},
    ]
    with FaultServer(lambda _: failure({"choices": choices})) as server:
        reply = answers(make_engine(server), 1, replace(SAMPLING, n=2))[0]
    assert (reply.texts, reply.cut_off, reply.error) == (["a", "b and"], (False, True), "")


def events(*parts, end="data: [DONE]\n\n"):
    lines = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in parts]
    return Fault(body=("".join(f"data: {json.dumps(line)}\n\n" for line in lines) + end).encode())


def test_server_sent_events_are_read_whether_asked_for_or_not(make_engine):
    with FaultServer(lambda _: events("Is it ", "dry?")) as server:
        assert texts(make_engine(server)) == [["Is it dry?"]]
        assert texts(make_engine(server, stream=True)) == [["Is it dry?"]]
    assert [call.body.get("stream") for call in server.calls] == [None, True]


def test_a_server_that_only_streams_is_asked_to(make_engine):
    refusal = http_error(400, "This model only support stream mode, please enable the stream parameter")
    with FaultServer(lambda call: events("hi") if call.body.get("stream") else refusal) as server:
        assert texts(make_engine(server)) == [["hi"]]


def test_a_stream_without_its_end_is_sent_again(make_engine):
    with FaultServer(lambda call: events("half", end="") if call.index == 0 else GOOD) as server:
        assert texts(make_engine(server)) == [["re: q0"]]


# --- a 200 that is no completion


def test_a_rate_limit_told_with_status_200_waits_like_one(make_engine):
    limit = failure({"choices": None, "error": {"message": "Provider returned error", "code": 429}})
    with FaultServer(lambda call: limit if call.index < 2 else GOOD) as server:
        assert texts(make_engine(server)) == [["re: q0"]]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (failure({"error": {"message": "Insufficient credits", "code": 402}}), "Insufficient credits.*balance"),
        (
            failure({"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
            "Unexpected endpoint.*base URL",
        ),
        (Fault(body=b"<!doctype html><title>sign in</title>"), "a web page instead of JSON.*base URL"),
    ],
    ids=["credit", "endpoint", "page"],
)
def test_what_no_try_can_mend_stops_at_once_in_the_servers_words(make_engine, fault, said):
    with FaultServer(lambda _: fault) as server, pytest.raises(UserError, match=said) as caught:
        texts(make_engine(f"http://127.0.0.1:{server.port}", concurrency=2), 100)
    assert server.received <= 6
    if "base URL" in said:
        assert f"http://127.0.0.1:{server.port}/v1" in str(caught.value)


# --- one request's trouble stays one request's trouble


@pytest.mark.parametrize("status", [400, 403])
def test_moderation_before_the_first_answer_fails_single_requests(make_engine, status):
    bad = {"q0", "q1", "q2", "q3"}
    plan = lambda call: http_error(status, "no") if call.text in bad else Fault(delay=0.1)  # noqa: E731
    with FaultServer(plan) as server:
        replies = answers(make_engine(server, concurrency=8), 20)
    assert {key for key, reply in replies.items() if reply.error} == {0, 1, 2, 3}


def test_when_only_refused_requests_are_left_a_question_of_our_own_tells_whose_fault_it_is(make_engine):
    plan = lambda call: http_error(400, "no") if call.text.startswith("q") else GOOD  # noqa: E731
    with FaultServer(plan) as server:
        replies = answers(make_engine(server), 2)
    assert [reply.error for reply in replies.values()] == ["HTTP 400", "HTTP 400"]
    assert all(reply.final for reply in replies.values())
    assert server.received == 2 + 1


@pytest.mark.parametrize(
    "message",
    [
        "Content Exists Risk",
        "系统检测到输入或生成内容可能包含不安全或敏感内容",
        "The request was rejected because it was considered high risk",
        "Range of input length should be [1, 30720]",
        "the request exceeds the available context size (4096 tokens), try increasing it",
        "Please reduce the length of the messages or completion.",
    ],
)
def test_words_that_providers_use_of_one_request_are_counted_as_such(make_engine, message):
    with FaultServer(lambda _: http_error(400, message)) as server:
        errors = [reply.error for reply in answers(make_engine(server), 30).values()]
    assert set(errors) <= {"moderated (HTTP 400)", "prompt too long (HTTP 400)"}
    assert server.received == 30


def test_a_key_with_stray_blanks_is_cleaned(make_engine, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    with FaultServer() as server:
        texts(make_engine(server))
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"


def test_retry_after_in_milliseconds_is_read(make_engine):
    first = http_error(429, "slow down", retry_after_ms="30")
    with FaultServer(lambda call: first if call.index == 0 else GOOD) as server:
        assert texts(make_engine(server), sampling=Sampling(temperature=0, top_p=1, max_tokens=1)) == [["re: q0"]]


def test_what_is_left_out_or_set_otherwise_counts_as_applied_so(make_engine):
    refuse = lambda call: (  # noqa: E731
        http_error(400, "Unrecognized request argument supplied: repetition_penalty")
        if "repetition_penalty" in call.body
        else http_error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "max_tokens" in call.body
        else GOOD
    )
    with FaultServer(refuse) as server:
        engine = make_engine(server, extra_json='{"top_p": null, "temperature": 0.2}')
        texts(engine)
        applied = engine.applied(SAMPLING)
    assert applied == {"temperature": 0.2, "top_p": None, "max_tokens": 64, "repetition_penalty": None}
    assert not_applied(SAMPLING, applied) == (
        "temperature 0.7 (is 0.2), top_p 0.9 (left out), repetition_penalty 1.1 (left out)"
    )


def test_a_penalty_of_one_is_applied_by_every_server(make_engine):
    with FaultServer() as server:
        sampling = replace(SAMPLING, repetition_penalty=1.0)
        assert make_engine(server, extra_body=False).applied(sampling) == as_asked(sampling)
