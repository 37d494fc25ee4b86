"""The `openai` engine against a server that fails in every way it can, and a run that is killed 20 times."""

import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from zlib import crc32

import pytest
from fault_server import (
    CUT,
    GOOD,
    HANG,
    INVALID_JSON,
    NO_CHOICES,
    NULL_CONTENT,
    Fault,
    FaultServer,
    http_error,
    in_order,
)

from tuner.learn_to_ask.data_prepare.extract_info import extract_info
from tuner.learn_to_ask.engines import openai_api
from tuner.learn_to_ask.engines.base import Reply, Request, Sampling
from tuner.learn_to_ask.engines.offline import OfflineEngine, extract_answer
from tuner.learn_to_ask.engines.openai_api import OpenAIEngine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.prompt import extraction_messages
from tuner.learn_to_ask.records import Session
from tuner.learn_to_ask.segmentation import segment

KEY = "sk-very-secret-0123456789"
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=64, repetition_penalty=1.1)
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def make_engine():
    """Engines with short waits, closed after the test."""
    engines = []

    def make(server, **changes):
        arguments = {
            "concurrency": 4,
            "connect_timeout": 5.0,
            "read_timeout": 5.0,
            "max_retries": 3,
            "backoff_base": 0.001,
        }
        base_url = server if isinstance(server, str) else server.base_url
        engine = OpenAIEngine(base_url=base_url, model="m", **(arguments | changes))
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def conversations(count, *, start=0):
    """Requests whose last messages are `q0`, `q1`, …"""
    for index in range(start, start + count):
        yield Request(index, [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{index}"}])


def answers(engine, count, sampling=SAMPLING):
    """The replies, by key."""
    return {reply.key: reply for reply in engine.generate(conversations(count), sampling)}


# What is sent and what comes back


def test_given_a_good_server_when_asked_then_every_request_has_its_answer_and_tokens(make_engine):
    with FaultServer() as server:
        replies = answers(make_engine(server), 50)
    assert replies == {index: Reply(index, [f"re: q{index}"], 2, 2) for index in range(50)}


def test_given_extra_body_when_asked_then_the_request_holds_all_sampling_values_and_the_key(make_engine):
    with FaultServer() as server:
        answers(make_engine(server), 1)
    call = server.calls[0]
    assert (call.method, call.path, call.headers["authorization"]) == ("POST", "/v1/chat/completions", f"Bearer {KEY}")
    assert call.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q0"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 64,
        "repetition_penalty": 1.1,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_given_no_extra_body_when_asked_then_only_what_plain_servers_know_is_sent(make_engine):
    with FaultServer() as server:
        answers(make_engine(server, extra_body=False), 1)
    assert server.calls[0].body.keys() == {"model", "messages", "temperature", "top_p", "max_tokens"}


def test_given_n_samples_when_asked_then_one_request_brings_them(make_engine):
    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=64, n=3)
    with FaultServer() as server:
        replies = answers(make_engine(server), 2, sampling)
    assert replies[1] == Reply(1, ["re: q1"] * 3, 2, 6)
    assert [call.body["n"] for call in server.calls] == [3, 3]


def test_given_a_server_that_ignores_n_when_asked_then_the_reply_is_an_error_and_counts_what_was_paid(make_engine):
    one = Fault(
        body=b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}'
    )
    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=64, n=3)
    with FaultServer(lambda _: one) as server:
        assert answers(make_engine(server), 1, sampling) == {0: Reply(0, [], 5, 7, "1 of 3 answers")}
    assert server.received == 1


@pytest.mark.parametrize(
    ("written", "arrives"),
    [
        ("lone \ud83d surrogate", "lone \ufffd surrogate"),
        ("pair \ud83d\ude00", "pair 😀"),
        ("喉咙痛\u2028\x00\x85", "喉咙痛\u2028\x00\x85"),
        ("x" * 1_000_000, "x" * 1_000_000),
        ("\ufeffé" * 10, "\ufeffé" * 10),
    ],
    ids=["lone surrogate", "surrogate pair", "odd characters", "1 MB", "byte order mark"],
)
def test_given_any_text_when_asked_then_it_arrives_as_valid_unicode(make_engine, written, arrives):
    with FaultServer(answer=lambda messages: messages[-1]["content"][:20]) as server:
        [reply] = make_engine(server).generate([Request(0, [{"role": "user", "content": written}])], SAMPLING)
    assert server.calls[0].text == arrives
    assert reply.texts == [arrives[:20]]


def test_given_an_answer_with_a_lone_surrogate_when_asked_then_the_reply_has_none(make_engine):
    with FaultServer(lambda _: Fault(body=b'{"choices": [{"message": {"content": "a\\ud800b"}}]}')) as server:
        assert answers(make_engine(server), 1) == {0: Reply(0, ["a\ufffdb"])}


# Trouble that goes away


@pytest.mark.parametrize(
    "fault",
    [
        *(http_error(status, "later") for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
        http_error(429, "later", Retry_After="0"),
        http_error(503, "later", Retry_After="no date"),
        CUT,
        INVALID_JSON,
        Fault(body=b"[]"),
        Fault(body=b"\xff\xfe"),
        Fault(body=b"[" * 100_000),
        Fault(body=b'{"choices": [null]}'),
        Fault(body=b'{"choices": [{"message": {"content": 5}}]}'),
        Fault(headers=(("Content-Encoding", "gzip"),)),
        NO_CHOICES,
        NULL_CONTENT,
    ],
    ids=lambda fault: f"{fault.status} {'cut' if fault.cut else str(fault.headers) + str(fault.body)[:20]}",
)
def test_given_a_passing_fault_when_asked_then_the_request_is_sent_again(make_engine, fault):
    with FaultServer(in_order(fault, fault)) as server:
        engine = make_engine(server)
        replies = answers(engine, 1)
    assert replies[0].texts == ["re: q0"]
    assert (server.received, engine.resent) == (3, 2)


def test_given_a_hang_when_the_read_timeout_is_over_then_the_request_is_sent_again(make_engine):
    with FaultServer(in_order(HANG)) as server:
        replies = answers(make_engine(server, read_timeout=0.1), 1)
        server.wait_until(lambda server: server.aborted == 1)
    assert replies[0].texts == ["re: q0"]


def test_given_an_answer_that_trickles_when_the_limits_are_over_then_it_is_given_up(make_engine):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        engine = make_engine(url, connect_timeout=0.1, read_timeout=0.2, max_retries=0)
        replies = engine.generate(conversations(1), SAMPLING)
        with trickle(listener):
            assert next(replies) == Reply(0, [], error="no answer within 0.2 s")


def trickle(listener):
    """Answers one connection with a body that never ends, a space each 20 ms."""
    script = (
        "import socket,sys,time\n"
        "c,_=socket.socket(fileno=int(sys.argv[1])).accept()\n"
        "c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 999999\\r\\n\\r\\n')\n"
        "while True: c.sendall(b' '); time.sleep(0.02)\n"
    )
    descriptor = listener.fileno()
    os.set_inheritable(descriptor, True)
    return _Killed(subprocess.Popen([sys.executable, "-c", script, str(descriptor)], pass_fds=[descriptor], stderr=-3))


class _Killed:
    """Kills a process at the end of a block."""

    def __init__(self, process):
        self.process = process

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_given_nobody_listens_yet_when_asked_then_connecting_is_retried(make_engine):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    replies = make_engine(f"http://127.0.0.1:{port}/v1").generate(conversations(1), SAMPLING)
    with pytest.raises(UserError, match=r"cannot connect.*check that the server runs.*--resume"):
        next(replies)


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_given_retry_after_when_refused_then_the_next_try_comes_no_sooner(make_engine, as_date):
    waits = []

    def plan(call):
        waits.append(time.time())
        if call.index:
            return GOOD
        until = datetime.now(UTC) + timedelta(seconds=2)  # a date holds whole seconds: this is at least 1 away
        return http_error(429, "slow down", Retry_After=format_datetime(until, usegmt=True) if as_date else "1")

    with FaultServer(plan) as server:
        assert answers(make_engine(server), 1)[0].texts == ["re: q0"]
    assert 0.95 <= waits[1] - waits[0] < 4


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        (" 1.5 ", 1.5, 1.5),
        ("", 0, 0),
        ("-3", 0, 0),
        ("nan", 0, 0),
        ("1e9", 0, 0),
        ("soon", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00", 0, 0),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", 0, 0),
        (format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 3000, 3600),
    ],
)
def test_given_any_retry_after_when_read_then_it_is_seconds_from_now(header, low, high):
    assert low <= openai_api._retry_after(header) <= high


def test_given_lasting_faults_when_the_retries_are_used_up_then_the_reply_says_why(make_engine):
    faults = {
        "q0": (NULL_CONTENT, "empty answer"),
        "q1": (NO_CHOICES, "empty choice list"),
        "q2": (http_error(500, "boom"), "HTTP 500"),
        "q3": (INVALID_JSON, "unreadable body"),
        "q4": (CUT, "connection cut"),
    }
    with FaultServer(lambda call: faults[call.text][0] if call.text in faults else GOOD) as server:
        replies = answers(make_engine(server), 8)
    assert {f"q{key}": reply.error for key, reply in replies.items() if reply.error} == {
        text: reason for text, (_, reason) in faults.items()
    }
    sent = Counter(call.text for call in server.calls)
    assert sent == {"q0": 3, "q1": 3, "q2": 4, "q3": 4, "q4": 4, "q5": 1, "q6": 1, "q7": 1}
    assert (replies[0].prompt_tokens, replies[0].completion_tokens) == (15, 21)


# Trouble that stays


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
        if call.text == "q3":
            return Fault(status=401, delay=0.05)
        return http_error(500) if call.text == "q2" else Fault(delay=0.3)

    with FaultServer(plan) as server:
        replies = make_engine(server, backoff_base=60.0).generate(conversations(1000), SAMPLING)
        kept = []
        with pytest.raises(UserError, match="HTTP 401"):
            for reply in replies:
                kept.append(reply.key)
    assert (sorted(kept), server.received) == ([0, 1], 4)


def test_given_no_credit_when_answered_429_then_the_run_stops_at_once(make_engine):
    fault = Fault(status=429, body=b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}')
    with FaultServer(lambda _: fault) as server, pytest.raises(UserError, match=r"exceeded your quota.*balance"):
        answers(make_engine(server, concurrency=1), 5)
    assert server.received == 1


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
    assert server.received <= 4 + 2


def test_given_a_400_for_single_requests_when_others_are_answered_then_only_these_fail(make_engine, capsys):
    bad = {"q0": "This model's maximum context length is 8192 tokens", "q7": "odd request"}
    with FaultServer(lambda call: http_error(400, bad[call.text]) if call.text in bad else GOOD) as server:
        replies = answers(make_engine(server), 20)
    assert {key for key, reply in replies.items() if reply.error == "HTTP 400"} == {0, 7}
    assert server.received == 20
    assert capsys.readouterr().err.count("refused a request with HTTP 400: This model's maximum context") == 1


def test_given_only_requests_that_are_too_long_when_asked_then_each_fails_and_nothing_stops(make_engine):
    with FaultServer(lambda _: http_error(400, "maximum context length is 10 tokens")) as server:
        replies = answers(make_engine(server), 60)
    assert [reply.error for reply in replies.values()] == ["HTTP 400"] * 60


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


# The key


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
        OpenAIEngine(base_url="https://api.example.com/v1", model="m", api_key_env="MY_KEY")


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
        OpenAIEngine(base_url="https://api.example.com/v1", model="m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "api.example.com/v1", "ftp://pa55word@x/v1", "http://", "http://u:pa55word@x:y"])
def test_given_a_url_that_cannot_be_used_when_built_then_the_error_shows_how_one_looks(url):
    with pytest.raises(UserError, match="http://localhost:8000/v1") as caught:
        OpenAIEngine(base_url=url, model="m")
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


# Laziness, limits and early ends


def test_given_many_requests_when_asked_then_the_concurrency_is_reached_and_never_exceeded(make_engine):
    with FaultServer(lambda call: Fault(delay=0.02 if call.index % 7 else 0.05)) as server:
        assert len(answers(make_engine(server, concurrency=7), 200)) == 200
    assert server.max_in_flight == 7


def test_given_a_slow_consumer_when_it_takes_one_reply_then_no_more_is_pulled_than_has_a_place(make_engine):
    pulled = []

    def requests():
        for request in conversations(1000):
            pulled.append(request.key)
            yield request

    with FaultServer() as server:
        replies = make_engine(server, concurrency=5).generate(requests(), SAMPLING)
        assert not pulled
        for taken in range(1, 20):
            next(replies)
            server.wait_until(lambda server: server.received == len(pulled) and not server.in_flight)
            assert len(pulled) <= taken - 1 + 5
        replies.close()


def test_given_a_request_added_while_others_run_when_there_is_a_place_then_it_is_sent(make_engine):
    more = list(conversations(3))

    def requests():
        while more:
            yield more.pop(0)

    with FaultServer() as server:
        keys = []
        for reply in make_engine(server, concurrency=2).generate(requests(), SAMPLING):
            keys.append(reply.key)
            if reply.key == 1:
                more.extend(conversations(1, start=99))
    assert sorted(keys) == [0, 1, 2, 99]


def test_given_replies_of_different_speed_when_asked_then_they_come_as_they_finish(make_engine):
    with FaultServer(lambda call: Fault(delay=0.5 if call.text == "q0" else 0.0)) as server:
        keys = [reply.key for reply in make_engine(server).generate(conversations(10), SAMPLING)]
    assert keys[-1] == 0


@pytest.mark.parametrize("end", ["close", "error", "engine"])
def test_given_hanging_requests_when_the_run_ends_early_then_all_are_cancelled_at_once(make_engine, end):
    with FaultServer(lambda call: GOOD if call.index == 0 else HANG) as server:
        engine = make_engine(server, read_timeout=600.0)
        replies = engine.generate(conversations(1000), SAMPLING)
        next(replies)
        server.wait_until(lambda server: server.in_flight >= 3)
        started = time.monotonic()
        if end == "engine":
            engine.close()
        elif end == "close":
            replies.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                replies.throw(KeyboardInterrupt)
        server.wait_until(lambda server: server.in_flight == 0)
        assert time.monotonic() - started < 2
        assert server.aborted >= 3


def test_given_a_closed_engine_when_closed_again_then_nothing_happens(make_engine):
    engine = make_engine("http://localhost:1/v1")
    engine.close()
    engine.close()


def test_given_a_waiting_run_when_interrupted_then_the_process_ends_at_once():
    script = (
        # A shell that starts things in the background has them ignore SIGINT.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from tuner.learn_to_ask.cli import run\n"
        "from tuner.learn_to_ask.engines.base import *\n"
        "from tuner.learn_to_ask.engines.openai_api import OpenAIEngine\n"
        "engine = OpenAIEngine(base_url=sys.argv[1], model='m')\n"
        "sampling = Sampling(temperature=0, top_p=1, max_tokens=1)\n"
        "run(lambda: list(engine.generate([Request(0, [{'role': 'user', 'content': 'q'}])], sampling)))\n"
    )
    with FaultServer(lambda _: HANG) as server:
        command = [sys.executable, "-c", script, server.base_url, str(REPOSITORY)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        server.wait_until(lambda server: server.in_flight == 1)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=10)
    assert (process.returncode, printed) == (130, "interrupted; where there is a --resume, it continues\n")


@pytest.mark.slow
def test_given_10000_requests_when_asked_then_memory_stays_flat(make_engine):
    live = {}
    with FaultServer(record=False) as server:
        replies = make_engine(server, concurrency=32).generate(conversations(10_000), SAMPLING)
        tracemalloc.start()
        try:
            for number, _ in enumerate(replies, start=1):
                if number in (1000, 9900):
                    gc.collect()
                    live[number], peak = tracemalloc.get_traced_memory()
                    tracemalloc.reset_peak()
        finally:
            tracemalloc.stop()
    assert (number, server.max_in_flight <= 32) == (10_000, True)
    assert live[9900] - live[1000] < 1_000_000
    assert peak - live[1000] < 5_000_000


# Step A with this engine: faults, kill -9 and resume


def write_sessions(path, count):
    """Sessions of three rounds; no two contexts or futures are the same."""
    with path.open("w") as file:
        for case in range(count):
            messages = []
            for turn, complaint in enumerate(
                ("i have diarrhea", "i threw up once", "my head hurts", "only the left half")
            ):
                messages.append({"role": "user", "content": f"{complaint}, case {case}.{turn}"})
                messages.append({"role": "assistant", "content": f"anything else about {case}.{turn}?"})
            file.write(json.dumps({"session_id": case, "diagn": "d", "messages": messages}) + "\n")


def prompts(path):
    """Index -> the last message of the extraction request."""
    sessions = (Session.model_validate_json(line) for line in path.read_text().splitlines())
    samples = (sample for session in sessions for sample in segment(session))
    return [extraction_messages(sample.remaining_chat)[-1]["content"] for sample in samples]


def extract(input_file, output_file, engine, *, resume=False):
    """Step A, its exit code."""
    try:
        return extract_info(
            input_file=input_file,
            output_file=output_file,
            make_engine=lambda: engine,
            prices=None,
            max_retries=2,
            max_failures=0.0,
            strict=True,
            resume=resume,
            overwrite=False,
        )
    finally:
        engine.close()


def faulty(call):
    """A plan by the prompt alone, so that it is the same in every order: one in three first tries fails."""
    faults = (http_error(429, "slow", Retry_After="0"), http_error(500), http_error(502), CUT, INVALID_JSON, NO_CHOICES)
    number = crc32(call.text.encode()) % 18
    return faults[number] if number < len(faults) and not faulty.tried.add_and_tell(call.text) else Fault(delay=0.01)


class _Seen(set):
    """Texts that came before."""

    def add_and_tell(self, text):
        seen = text in self
        self.add(text)
        return seen


@pytest.fixture
def undisturbed(tmp_path):
    """The input, and what an undisturbed run makes of it."""
    faulty.tried = _Seen()
    write_sessions(tmp_path / "in.jsonl", 60)
    assert extract(tmp_path / "in.jsonl", tmp_path / "expected.jsonl", OfflineEngine(extract_answer)) == 0
    return tmp_path / "in.jsonl", (tmp_path / "expected.jsonl").read_bytes()


def test_given_a_faulty_server_when_step_a_runs_then_the_output_is_that_of_an_undisturbed_run(
    make_engine, undisturbed, tmp_path, capsys
):
    input_file, expected = undisturbed
    with FaultServer(faulty, answer=extract_answer) as server:
        assert extract(input_file, tmp_path / "out.jsonl", make_engine(server, concurrency=8)) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert server.max_in_flight <= 8
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err


def test_given_a_server_that_dies_when_step_a_resumes_then_nothing_was_given_up(make_engine, undisturbed, tmp_path):
    input_file, expected = undisturbed
    output = tmp_path / "out.jsonl"
    with FaultServer(lambda call: GOOD if call.index < 50 else http_error(500), answer=extract_answer) as server:
        port = server.port
        with pytest.raises(UserError, match="--resume"):
            extract(input_file, output, make_engine(server))
    journal = (tmp_path / "out.jsonl.journal").read_text()
    assert '"info_set": null' not in journal
    with FaultServer(answer=extract_answer) as server:
        engine = make_engine(server)
        engine.description = engine.description.replace(str(server.port), str(port))
        assert extract(input_file, output, engine, resume=True) == 0
    assert output.read_bytes() == expected
    assert server.received < 180 - 40


DRIVER = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_openai_engine import extract
from tuner.learn_to_ask.engines.openai_api import OpenAIEngine
engine = OpenAIEngine(base_url=sys.argv[3], model="m", concurrency=8, backoff_base=0.001)
sys.exit(extract(Path(sys.argv[4]), Path(sys.argv[5]), engine, resume=True))
"""


def journaled(path):
    """Indices of the complete lines of a journal."""
    lines = path.read_bytes().split(b"\n")[1:-1] if path.exists() else []
    return {json.loads(line)["index"] for line in lines}


@pytest.mark.slow
def test_given_20_kills_when_resumed_each_time_then_the_output_is_right_and_nothing_finished_is_sent_again(
    undisturbed, tmp_path
):
    input_file, expected = undisturbed
    texts = prompts(input_file)
    output = tmp_path / "out.jsonl"
    journal = tmp_path / "out.jsonl.journal"
    chance = random.Random(3)
    unsettled = 0
    with FaultServer(faulty, answer=extract_answer) as server:
        command = [sys.executable, "-c", DRIVER, str(REPOSITORY), str(REPOSITORY / "tests"), server.base_url]
        command += [str(input_file), str(output)]
        for _ in range(20):
            before, first = journaled(journal), server.received
            moment = first + chance.randint(1, 12)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            server.wait_until(lambda server, moment=moment: server.received >= moment)
            time.sleep(chance.uniform(0, 0.01))  # any moment within an answer
            process.kill()
            assert process.wait() == -signal.SIGKILL
            server.wait_until(lambda server: server.in_flight == 0)
            assert not {call.text for call in server.calls[first:]} & {texts[index] for index in before}
            paid = {call.text for call in server.calls[first:] if call.answered}
            lost = paid - {texts[index] for index in journaled(journal)}
            assert len(lost) <= 8, "a kill loses no more than what was under way"
            unsettled += len(lost)
        before, first = journaled(journal), server.received
        assert 20 < len(before) < len(texts), "the kills must hit unfinished runs"
        assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
        assert not {call.text for call in server.calls[first:]} & {texts[index] for index in before}
    assert output.read_bytes() == expected
    assert not journal.exists()
    good = Counter(call.text for call in server.calls if call.answered)
    assert sum(good.values()) - len(good) <= unsettled
