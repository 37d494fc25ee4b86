"""The `openai` engine against a server that fails in every way it can: what is sent, read and sent again."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
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
from openai_runs import KEY, SAMPLING, answers, conversations

from tuner.learn_to_ask.engines.base import Reply, Request, Sampling
from tuner.learn_to_ask.engines.openai_reply import retry_after_seconds
from tuner.learn_to_ask.errors import UserError


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


def test_given_a_server_that_ignores_n_when_asked_then_each_answer_gets_a_request_and_none_is_paid_twice(
    make_engine, capsys
):
    one = Fault(
        body=b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}'
    )
    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=64, n=3)
    with FaultServer(lambda _: one) as server:
        engine = make_engine(server)
        assert answers(engine, 1, sampling) == {0: Reply(0, ["x"] * 3, 15, 21)}
        # From then on no request asks for more than one
        assert answers(engine, 1, sampling) == {0: Reply(0, ["x"] * 3, 15, 21)}
    assert [call.body.get("n") for call in server.calls] == [3, *[None] * 5]
    assert capsys.readouterr().err.count("ignores `n`") == 1


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
    assert low <= retry_after_seconds(httpx.Headers({"Retry-After": header})) <= high


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
