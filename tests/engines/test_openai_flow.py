"""How many requests of the `openai` engine are under way, in which order they come back, how a run ends."""

import gc
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest
from fault_server import (
    GOOD,
    HANG,
    Fault,
    FaultServer,
)
from openai_runs import REPOSITORY, SAMPLING, answers, conversations


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

    # The first is slow: were it answered before the second, there would be nothing to ask for when its place is free.
    with FaultServer(lambda call: Fault(delay=0.5 if call.text == "q0" else 0.0)) as server:
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
        "from tuner.learn_to_ask.engines.openai_address import Endpoint\n"
        "from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine\n"
        "engine = OpenAIEngine(Endpoint(base_url=sys.argv[1], model='m'))\n"
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
