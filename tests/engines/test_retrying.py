"""Asking an engine until every answer parses or the tries are used up."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.engines.base import Reply, Request, Sampling
from tuner.learn_to_ask.engines.retrying import Answer, Prices, Usage, ask

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=16)


class ScriptedEngine:
    """Answers by a script: key -> what each try gets.

    A string is an answer, an exception an error. The last entry is repeated. `batch` requests are taken at a
    time, and their replies come `backwards` if wanted, as no order is promised.
    """

    description = "scripted"

    def __init__(self, script, *, batch=1, backwards=False):
        self.script = script
        self.batch = batch
        self.backwards = backwards
        self.sent = []
        self.samplings = []

    def generate(self, requests, sampling):
        self.samplings.append(sampling)
        while taken := list(itertools.islice(requests, self.batch)):
            for request in reversed(taken) if self.backwards else taken:
                self.sent.append(request.key)
                said = self.script[request.key][min(self.sent.count(request.key), len(self.script[request.key])) - 1]
                if isinstance(said, Exception):
                    yield Reply(request.key, [], prompt_tokens=1, error=str(said))
                else:
                    yield Reply(request.key, [said], prompt_tokens=10, completion_tokens=len(said))

    def close(self):
        pass


def requests_for(keys):
    return [Request(key, [{"role": "user", "content": str(key)}]) for key in keys]


def parse_number(texts):
    """An answer is readable when it is a number."""
    return int(texts[0]) if texts[0].isdecimal() else None


def ask_all(engine, requests, *, max_tries=3):
    usage = Usage()
    answers = list(ask(engine, requests, sampling=SAMPLING, parse=parse_number, max_tries=max_tries, usage=usage))
    return answers, usage


def test_answers_that_parse_are_passed_on_as_they_finish():
    engine = ScriptedEngine({0: ["10"], 1: ["11"], 2: ["12"]}, batch=2, backwards=True)
    answers, usage = ask_all(engine, requests_for(range(3)))
    assert answers == [Answer(1, 11), Answer(0, 10), Answer(2, 12)]
    assert (usage.answered, usage.retried, usage.failed) == (3, 0, {})


def test_without_requests_nothing_is_answered():
    answers, usage = ask_all(ScriptedEngine({}), [])
    assert answers == []
    assert usage == Usage()


def test_an_answer_that_does_not_parse_is_asked_for_again():
    engine = ScriptedEngine({0: ["?", "!", "10"]})
    answers, usage = ask_all(engine, requests_for([0]))
    assert answers == [Answer(0, 10)]
    assert engine.sent == [0, 0, 0]
    assert (usage.answered, usage.retried, usage.failed) == (1, 2, {})


@pytest.mark.parametrize("max_tries", [1, 2, 3])
def test_a_request_is_given_up_after_the_last_try(max_tries):
    engine = ScriptedEngine({0: ["?"]})
    answers, usage = ask_all(engine, requests_for([0]), max_tries=max_tries)
    assert answers == [Answer(0, None)]
    assert engine.sent == [0] * max_tries
    assert (usage.answered, usage.retried, usage.failed) == (0, max_tries - 1, {"unreadable answer": 1})


def test_an_error_of_the_engine_is_tried_again_like_an_unreadable_answer():
    engine = ScriptedEngine({0: [RuntimeError("timeout"), "?", "10"]})
    answers, usage = ask_all(engine, requests_for([0]))
    assert answers == [Answer(0, 10)]
    assert (usage.answered, usage.retried, usage.failed) == (1, 2, {})


def test_requests_that_were_given_up_are_counted_by_their_last_reason():
    script = {
        0: [RuntimeError("timeout")],
        1: ["?", RuntimeError("timeout")],
        2: [RuntimeError("timeout"), "?"],
        3: [RuntimeError("prompt too long")],
        4: ["14"],
    }
    answers, usage = ask_all(ScriptedEngine(script, batch=5), requests_for(script), max_tries=2)
    assert {answer.key: answer.value for answer in answers} == {0: None, 1: None, 2: None, 3: None, 4: 14}
    assert usage.failed == {"timeout": 2, "unreadable answer": 1, "prompt too long": 1}
    assert (usage.answered, usage.retried) == (1, 4)


def test_a_request_that_would_always_end_the_same_way_is_not_tried_again():
    class Refusing(ScriptedEngine):
        def generate(self, requests, sampling):
            for request in requests:
                self.sent.append(request.key)
                yield Reply(request.key, [], error="prompt too long", final=True)

    engine = Refusing({})
    answers, usage = ask_all(engine, requests_for([0, 1]), max_tries=3)
    assert answers == [Answer(0, None), Answer(1, None)]
    assert engine.sent == [0, 1]
    assert (usage.retried, usage.failed) == (0, {"prompt too long": 2})


def test_an_empty_value_is_a_value():
    answers = list(
        ask(
            ScriptedEngine({0: ["nothing"]}),
            requests_for([0]),
            sampling=SAMPLING,
            parse=lambda texts: [],
            max_tries=3,
            usage=Usage(),
        )
    )
    assert answers == [Answer(0, [])]


def test_a_retry_goes_ahead_of_new_requests():
    engine = ScriptedEngine({0: ["?", "10"], 1: ["11"], 2: ["12"]})
    answers, _ = ask_all(engine, requests_for(range(3)))
    assert engine.sent == [0, 0, 1, 2]
    assert answers == [Answer(0, 10), Answer(1, 11), Answer(2, 12)]


def test_answers_that_fail_after_the_engine_took_the_last_request_are_asked_for_again():
    # Given an engine that takes everything before it answers
    engine = ScriptedEngine({0: ["?", "10"], 1: ["?", "?", "11"], 2: ["12"]}, batch=99)
    answers, usage = ask_all(engine, requests_for(range(3)))
    assert {answer.key: answer.value for answer in answers} == {0: 10, 1: 11, 2: 12}
    assert engine.sent == [0, 1, 2, 0, 1, 1]
    assert (usage.answered, usage.retried, usage.failed) == (3, 3, {})


def test_requests_are_pulled_only_as_far_as_the_engine_works_ahead():
    pulled = []

    def source():
        for request in requests_for(range(100)):
            pulled.append(request.key)
            yield request

    engine = ScriptedEngine({key: [str(key)] for key in range(100)}, batch=4)
    answers = ask(engine, source(), sampling=SAMPLING, parse=parse_number, max_tries=3, usage=Usage())
    assert pulled == []
    assert next(answers) == Answer(0, 0)
    assert pulled == [0, 1, 2, 3]
    assert [next(answers).key for _ in range(4)] == [1, 2, 3, 4]
    assert pulled == list(range(8))


def test_tokens_are_counted_over_all_tries():
    # 10 in and 3 out, 1 in for the error, 10 in and 2 out
    _, usage = ask_all(ScriptedEngine({0: ["???", RuntimeError("timeout"), "10"]}), requests_for([0]))
    assert (usage.prompt_tokens, usage.completion_tokens) == (21, 5)


def test_the_sampling_reaches_the_engine_and_the_messages_do_not_change():
    seen = []

    class Listening(ScriptedEngine):
        def generate(self, requests, sampling):
            return super().generate((seen.append(request) or request for request in requests), sampling)

    engine = Listening({0: ["?", "10"]})
    (request,) = requests_for([0])
    ask_all(engine, [request])
    assert set(engine.samplings) == {SAMPLING}
    assert seen == [request, request]


def test_the_parser_gets_every_text_of_a_reply():
    class Twice(ScriptedEngine):
        def generate(self, requests, sampling):
            for request in requests:
                yield Reply(request.key, ["a", "b"])

    answers = ask(
        Twice({}), requests_for([0]), sampling=replace(SAMPLING, n=2), parse="+".join, max_tries=1, usage=Usage()
    )
    assert list(answers) == [Answer(0, "a+b")]


def test_the_summary_names_every_reason_and_the_tokens_only_when_counted():
    usage = Usage(answered=5, retried=2)
    usage.failed.update({"unreadable answer": 1, "timeout": 3})
    assert usage.rows() == [
        ("answered", 5),
        ("retried", 2),
        ("failed: timeout", 3),
        ("failed: unreadable answer", 1),
    ]
    usage.prompt_tokens, usage.completion_tokens = 1234567, 89
    assert usage.rows()[-1] == ("tokens in / out", "1,234,567 / 89")


def test_the_cost_is_told_when_the_prices_are_known():
    # 2 million tokens in at 0.5 a million, half a million out at 3 a million
    prices = Prices(tokens_in=0.5, tokens_out=3.0)
    usage = Usage(prompt_tokens=2_000_000, completion_tokens=500_000)
    assert prices.cost(2_000_000, 500_000) == 2.5
    assert usage.rows(prices)[-1] == ("cost", "2.5000")
    assert "cost" not in dict(usage.rows())


@given(
    failures=st.lists(st.integers(min_value=0, max_value=4), max_size=8),
    max_tries=st.integers(min_value=1, max_value=3),
    batch=st.integers(min_value=1, max_value=10),
    backwards=st.booleans(),
)
def test_every_request_gets_one_answer_however_the_engine_orders_its_work(failures, max_tries, batch, backwards):
    # Given requests of which each fails so many times before it is answered with its key
    script = {key: ["?"] * count + [str(key)] for key, count in enumerate(failures)}
    engine = ScriptedEngine(script, batch=batch, backwards=backwards)
    answers, usage = ask_all(engine, iter(requests_for(script)), max_tries=max_tries)
    # Then each is answered once, or given up once, after as many tries as that takes
    answered = [key for key, count in enumerate(failures) if count < max_tries]
    assert sorted(answer.key for answer in answers) == list(script)
    assert sorted(answer.key for answer in answers if answer.value is not None) == answered
    assert all(answer.value in (None, answer.key) for answer in answers)
    for key, count in enumerate(failures):
        assert engine.sent.count(key) == min(count + 1, max_tries)
    assert usage.answered == len(answered)
    assert usage.failed.total() == len(failures) - len(answered)
    assert usage.retried == sum(min(count, max_tries - 1) for count in failures)


def test_answers_that_were_cut_off_are_asked_for_again_and_the_whole_ones_of_their_reply_kept():
    replies = iter(
        [Reply(0, ["a", "b and"], cut_off=(False, True)), Reply(0, ["<think>so", "c"]), Reply(0, ["x", "y"])]
    )

    class Cutting(ScriptedEngine):
        def generate(self, requests, sampling):
            for _ in requests:
                yield next(replies)

    usage = Usage()
    answers = ask(
        Cutting({}), requests_for([0]), sampling=replace(SAMPLING, n=2), parse="+".join, max_tries=3, usage=usage
    )
    assert list(answers) == [Answer(0, "a+c")]
    assert usage.retried == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(0, ["half an"], cut_off=(True,)), "cut off at max_tokens"),
        (Reply(0, ["<think>it may"]), "cut off in its reasoning"),
    ],
)
def test_an_answer_that_never_comes_to_its_end_fails_by_its_reason(reply, reason):
    class Cutting(ScriptedEngine):
        def generate(self, requests, sampling):
            for _ in requests:
                yield reply

    usage = Usage()
    answers = ask(Cutting({}), requests_for([0]), sampling=SAMPLING, parse="+".join, max_tries=2, usage=usage)
    assert list(answers) == [Answer(0, None)]
    assert (usage.failed, usage.examples) == ({reason: 1}, {reason: reply.texts[0]})
