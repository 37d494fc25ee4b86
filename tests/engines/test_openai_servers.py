"""Several servers of one model behind the `openai` engine: who is asked, what becomes of one that fails or differs."""

import argparse
import asyncio
from collections import Counter

import pytest
from fault_server import GOOD, HANG, Fault, FaultServer, http_error
from openai_runs import KEY, SAMPLING, answers, conversations
from outage_proxy import OutageProxy

from tuner.learn_to_ask.engines.base import Reply
from tuner.learn_to_ask.engines.openai_address import Endpoint, find_addresses
from tuner.learn_to_ask.engines.openai_reply import AttemptError
from tuner.learn_to_ask.engines.openai_servers import Servers
from tuner.learn_to_ask.engines.select import add_engine_arguments, build_engine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.grader import GraderSettings, try_grader


def urls(*servers):
    return " ".join(server.base_url for server in servers)


def asked(*servers):
    """How often each conversation was sent, the engine's own questions left out."""
    return Counter(call.text for server in servers for call in server.calls if call.text.startswith("q"))


def slowly(seconds):
    return FaultServer(lambda _: Fault(delay=seconds))


def after(count, fault):
    """Good until so many requests have come, then a fault."""
    return lambda call: fault if call.index >= count else GOOD


def expected(count):
    return {index: Reply(index, [f"re: q{index}"], 2, 2) for index in range(count)}


# --- who is asked


def test_equal_servers_share_the_requests_and_none_is_sent_twice(make_engine):
    with slowly(0.02) as first, slowly(0.02) as second:
        assert answers(make_engine(urls(first, second)), 200) == expected(200)
    assert asked(first, second) == dict.fromkeys((f"q{index}" for index in range(200)), 1)
    assert min(asked(first).total(), asked(second).total()) > 60


def test_a_slow_server_gets_fewer(make_engine):
    with slowly(0.2) as slow, slowly(0.01) as fast:
        assert answers(make_engine(urls(slow, fast)), 100) == expected(100)
    assert asked(slow).total() < 40 < asked(fast).total()


def test_the_concurrency_is_that_of_each_server_and_no_more_is_pulled(make_engine):
    pulled = []

    def requests():
        for request in conversations(100):
            pulled.append(request.key)
            yield request

    with slowly(0.02) as first, slowly(0.03) as second:
        replies = make_engine(urls(first, second), concurrency=3).generate(requests(), SAMPLING)
        for yielded, _ in enumerate(replies):
            assert len(pulled) - yielded <= 6
    assert (first.max_in_flight, second.max_in_flight) == (3, 3)


def test_the_flag_takes_several_values_and_may_be_repeated():
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser, part="policy", prefix="eval_", offline=False)
    with FaultServer() as first, FaultServer() as second, FaultServer() as third:
        flags = ["--eval_base_url", first.base_url, second.base_url, "--eval_base_url", third.base_url]
        arguments = parser.parse_args([*flags, "--eval_model", "m"])
        engine = build_engine(arguments, prefix="eval_", model_path=None, model_flag="--eval_model_path")
        assert len(answers(engine, 60)) == 60
        engine.close()
    assert all(asked(server).total() > 0 for server in (first, second, third))


def test_model_and_first_server_name_the_run_so_that_others_come_and_go(make_engine):
    first, second = "http://localhost:1/v1", "http://localhost:2/v1"
    assert make_engine(f"{first} {second}").description == make_engine(first).description == f"openai:m@{first}"


def test_a_server_that_is_named_twice_is_one(make_engine):
    with slowly(0.01) as server:
        answers(make_engine(urls(server, server), concurrency=2), 20)
    assert server.max_in_flight == 2


def test_what_one_server_refuses_by_name_is_left_out_for_all(make_engine, capsys):
    refuse = lambda call: http_error(400, "Unrecognized: top_p") if "top_p" in call.body else GOOD  # noqa: E731
    with FaultServer(refuse) as strict, FaultServer() as lenient:
        engine = make_engine(urls(strict, lenient))
        assert answers(engine, 40) == expected(40)
        assert engine.applied(SAMPLING)["top_p"] is None
    # Both were checked with it; from the refusal on, which came before the first conversation, nobody gets it.
    assert not [call for call in (*strict.calls, *lenient.calls) if call.text[0] == "q" and "top_p" in call.body]
    assert capsys.readouterr().err.count("top_p is left out") == 1


def test_without_anything_to_ask_no_server_is_needed(make_engine):
    assert answers(make_engine("http://127.0.0.1:8/v1 http://127.0.0.1:9/v1"), 0) == {}


# --- servers that fail


def test_a_server_that_dies_is_left_out_its_requests_are_asked_elsewhere_and_it_is_used_again_when_it_is_back(
    make_engine, capsys
):
    with slowly(0.005) as first, slowly(0.005) as second, OutageProxy(second.port) as proxy:
        engine = make_engine(f"{first.base_url} http://127.0.0.1:{proxy.port}/v1", backoff_base=0.01)
        replies = engine.generate(conversations(5000), SAMPLING)
        keys = []

        def take_until(condition):
            for reply in replies:
                assert reply.texts == [f"re: q{reply.key}"]
                keys.append(reply.key)
                if condition():
                    return
            raise AssertionError("it never came to that")

        take_until(lambda: len(keys) == 100)
        proxy.go_down()
        take_until(lambda: proxy.refused)
        lonely = first.received
        take_until(lambda: first.received > lonely + 100)
        proxy.come_back()
        before = second.received
        take_until(lambda: second.received > before + 100)
        replies.close()
    assert len(set(keys)) == len(keys), "no conversation is answered twice"
    told = [line for line in capsys.readouterr().err.splitlines() if f":{proxy.port}" in line]
    assert any("left out until it answers again" in line for line in told)
    assert any("answers again" in line and "left out" not in line for line in told)


def test_a_server_that_dies_for_good_costs_each_of_its_requests_one_more(make_engine):
    with slowly(0.01) as first, slowly(0.01) as second, OutageProxy(second.port) as proxy:
        engine = make_engine(f"{first.base_url} http://127.0.0.1:{proxy.port}/v1", max_retries=0)
        got = {}
        for reply in engine.generate(conversations(200), SAMPLING):
            got[reply.key] = reply
            if len(got) == 50:
                proxy.go_down()
    assert got == expected(200)
    answered = Counter(call.text for call in first.calls if call.text.startswith("q"))
    assert set(answered.values()) == {1}
    # What was under way there when it died may have been answered into the void.
    assert sum(count - 1 for count in asked(first, second).values()) <= 4
    assert first.max_in_flight <= 4


def test_a_server_that_is_down_at_the_start_is_named_and_the_others_are_asked(make_engine, capsys):
    with FaultServer() as server:
        assert answers(make_engine(f"http://127.0.0.1:9/v1 {server.base_url}"), 30) == expected(30)
    assert "127.0.0.1:9: cannot connect" in capsys.readouterr().err


def test_a_server_that_hangs_keeps_its_places_and_no_more(make_engine):
    with FaultServer(lambda call: HANG if call.index else GOOD) as hanging, FaultServer() as good:
        engine = make_engine(urls(hanging, good), read_timeout=600.0)
        keys = set()
        for reply in engine.generate(conversations(100), SAMPLING):
            keys.add(reply.key)
            if len(keys) == 96:
                break
    assert hanging.max_in_flight == 4


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_server_that_refuses_everything_in_mid_run_is_left_out_and_the_run_goes_on(make_engine, capsys, status):
    with FaultServer(after(20, http_error(status, "no more"))) as failing, FaultServer() as good:
        assert answers(make_engine(urls(failing, good), backoff_base=60.0), 200) == expected(200)
    assert failing.received < 20 + 10
    assert f"{failing.port}: HTTP {status}: no more; left out" in capsys.readouterr().err


def test_a_server_that_asks_to_wait_is_left_alone_while_others_answer(make_engine):
    limit = http_error(429, "slow down", Retry_After="500")
    with FaultServer(after(10, limit)) as limited, FaultServer() as good:
        assert answers(make_engine(urls(limited, good)), 100) == expected(100)
    assert limited.received <= 10 + 4


def test_when_every_server_refuses_the_run_stops(make_engine):
    with (
        FaultServer(after(20, http_error(401, f"bad {KEY}"))) as first,
        FaultServer(after(20, http_error(401, f"bad {KEY}"))) as second,
        pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ answered HTTP 401: bad \*\*\* - .*OPENAI_API_KEY.*--resume"),
    ):
        answers(make_engine(urls(first, second)), 1000)
    assert first.received + second.received < 100


def test_when_every_server_breaks_down_the_run_stops(make_engine):
    plan = after(20, http_error(500, "boom"))
    with (
        FaultServer(plan) as first,
        FaultServer(plan) as second,
        pytest.raises(UserError, match=r"of the last \d+ requests failed .* HTTP 500: boom - .*--resume"),
    ):
        answers(make_engine(urls(first, second), max_retries=1), 10_000)


def test_a_request_that_every_server_refuses_is_that_requests_trouble(make_engine):
    plan = lambda call: http_error(400, "odd request") if call.text == "q7" else GOOD  # noqa: E731
    with FaultServer(plan) as first, FaultServer(plan) as second:
        replies = answers(make_engine(urls(first, second)), 40)
    assert {key: reply.error for key, reply in replies.items() if reply.error} == {7: "HTTP 400"}
    assert asked(first, second)["q7"] == 2


# --- servers that do not belong together


@pytest.mark.parametrize(("status", "advice"), [(401, "OPENAI_API_KEY"), (404, "model name m")])
def test_a_server_that_refuses_at_the_start_is_named_before_anything_is_asked(make_engine, status, advice):
    with FaultServer() as good, FaultServer(lambda _: http_error(status, f"no {KEY}")) as wrong:
        with pytest.raises(
            UserError, match=rf"^127\.0\.0\.1:{wrong.port} answered HTTP {status}: no .* - .*{advice}"
        ) as e:
            answers(make_engine(urls(good, wrong)), 10)
        assert KEY not in str(e.value)
        assert not asked(good, wrong)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ([{"id": "m", "root": "/models/step_100"}], [{"id": "m", "root": "/models/step_100"}], True),
        ([{"id": "m", "root": "/models/step_100"}], [{"id": "m", "root": "/models/step_200"}], False),
        ([{"id": "m", "root": "/models/step_100"}], [{"id": "m"}], True),  # one that does not say what it is
        ([{"id": "m"}, {"id": "x"}], [{"id": "m"}], True),
        ([{"id": "m"}], [{"id": "other"}], False),
        ([{"id": "one.gguf"}], [{"id": "one.gguf"}], True),  # a server that takes any name
        ([{"id": "one.gguf"}], [{"id": "two.gguf"}], False),
        ([{"id": "m"}], [], True),  # one that does not say
    ],
)
def test_servers_that_offer_different_models_are_refused_in_one_line(make_engine, first, second, same):
    with FaultServer(models=first) as one, FaultServer(models=second) as two:
        engine = make_engine(urls(one, two))
        if same:
            assert answers(engine, 10) == expected(10)
            return
        with pytest.raises(UserError, match="must all offer the same model") as caught:
            answers(engine, 10)
        assert not asked(one, two)
        for server, models in ((one, first), (two, second)):
            assert f"{server.base_url} offers {models[0].get('root', models[0]['id'])}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_secrets_of_every_server_are_hidden(make_engine, capsys):
    said = http_error(500, "pa55word-one pa55word-two")
    with FaultServer(lambda _: said) as first, FaultServer(lambda _: said) as second:
        addresses = [
            server.base_url.replace("//", f"//user:pa55word-{name}@")
            for server, name in ((first, "one"), (second, "two"))
        ]
        engine = make_engine(" ".join(addresses), max_retries=1)
        with pytest.raises(UserError) as caught:
            answers(engine, 100)
    assert "pa55word" not in str(caught.value) + capsys.readouterr().err + engine.description


# --- the grader in training


def test_the_grader_in_training_takes_several_servers(monkeypatch):
    monkeypatch.setenv("GRADER_KEY", KEY)
    messages = [{"role": "user", "content": "q"}]
    with (
        FaultServer(models=[{"id": "g"}]) as first,
        FaultServer(models=[{"id": "h"}]) as second,
        FaultServer() as third,
    ):

        def settings(*servers):
            return GraderSettings(
                grader="openai",
                temperature=0.7,
                max_tokens=9,
                base_url=urls(*servers),
                model="g",
                api_key_env="GRADER_KEY",
            )

        assert try_grader(messages, settings(first, third)).reply == "re: q"
        with pytest.raises(UserError, match="same model"):
            try_grader(messages, settings(first, second))


# --- how long a server rests


def test_a_server_rests_twice_as_long_each_time_and_one_request_tells_whether_it_is_well():
    async def run():
        base_url = "http://localhost:1/v1 http://localhost:2/v1"
        addresses = find_addresses(Endpoint(base_url=base_url, model="m"))
        servers = Servers(addresses, places=2, first_rest=20.0)
        bad, good = servers.all
        now = asyncio.get_running_loop().time

        assert await servers.take(()) is bad
        assert "left out" in servers.note(bad, AttemptError("cannot connect", "unreachable"))
        servers.give_back(bad)
        assert 19 < bad.rests_until - now() <= 20
        assert [await servers.take(()) for _ in range(2)] == [good, good]

        # All places of the other are taken: who comes next waits until one is given back.
        waiting = asyncio.create_task(servers.take(()))
        await asyncio.sleep(0)
        assert not waiting.done()
        servers.give_back(good)
        assert await waiting is good

        # The rest is over: one request goes there, and the next only 40 s later.
        bad.rests_until = now()
        assert await servers.take(()) is bad
        assert 39 < bad.rests_until - now() <= 40
        servers.give_back(good)
        assert await servers.take(()) is good

        # That one is answered, and the server has all its places again.
        assert servers.note(bad, None) == "answers again"
        assert await servers.take(()) is bad

    asyncio.run(run())
