"""What a run may spend: the bound on what is under way, what replies come to, and where a run stops."""

import argparse
import itertools
import threading
from argparse import Namespace

import pytest
from fault_server import FaultServer
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.engines.base import CUT_OFF, Reply, Request, Sampling
from tuner.learn_to_ask.engines.budget import Amount, Budget, Meter
from tuner.learn_to_ask.engines.budget_flags import add_budget_arguments, budget_of, prices_of
from tuner.learn_to_ask.engines.prices import Prices, of_endpoint, of_tinker, tinker_prices
from tuner.learn_to_ask.engines.retrying import Usage, ask
from tuner.learn_to_ask.engines.select import add_engine_arguments, add_job_arguments, job_settings
from tuner.learn_to_ask.errors import BudgetReachedError, UserError

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=100)


def request(key, text="x" * 20):
    return Request(key, [{"role": "user", "content": text}])


# 20 bytes are at most 20 tokens, a message adds at most 16 of the template and a conversation 64, the answer has 100.
BOUND = 20 + 16 + 64 + 100


def ask_all(engine, count, meter, *, sampling=SAMPLING, parse=lambda texts: texts[0], max_tries=1):
    usage, answers = Usage(), []
    reached = None
    try:
        for answer in ask(
            engine,
            (request(key) for key in range(count)),
            sampling=sampling,
            parse=parse,
            max_tries=max_tries,
            usage=usage,
            meter=meter,
        ):
            answers.append(answer.key)
    except BudgetReachedError as error:
        reached = error
    return answers, usage, reached


class Counting:
    """Takes `batch` requests at a time; each reply came to what `costs` says next."""

    def __init__(self, costs, *, batch=1, budget=None):
        self.costs = iter(costs)
        self.batch = batch
        self.budget = budget
        self.sent = 0

    def generate(self, requests, sampling):
        while taken := list(itertools.islice(requests, self.batch)):
            self.sent += len(taken)
            if self.budget:
                limit = self.budget.max_tokens
                assert self.budget.spent.tokens + self.budget.under_way.tokens <= limit, "bound by what could be spent"
            for one in taken:
                tokens_in, tokens_out = next(self.costs)
                yield Reply(one.key, ["fine"], tokens_in, tokens_out)


def test_a_budget_takes_no_more_than_fits_beside_what_is_spent_and_under_way():
    budget = Budget(max_tokens=100)

    assert budget.take(Amount(60))
    assert not budget.take(Amount(41))
    assert budget.take(Amount(40))
    budget.settle(Amount(60), Amount(10))  # it took less than it could

    assert (budget.spent.tokens, budget.under_way.tokens) == (10, 40)
    assert not budget.take(Amount(51))
    assert budget.take(Amount(50))


def test_money_is_counted_by_the_prices_of_each_engine():
    budget = Budget(max_usd=1.0)
    dear = Meter(budget=budget, prices=Prices(1000.0, 5000.0))

    # 100 of prompt at 0.001, 100 of answer at 0.005
    assert dear.take(request(0), SAMPLING)
    assert budget.under_way.usd == pytest.approx(0.1 + 0.5)
    assert not dear.take(request(1), SAMPLING)
    assert dear.settle(Reply(0, ["fine"], 20, 10), SAMPLING) == (20, 10, False)

    assert budget.spent.usd == pytest.approx(0.02 + 0.05)
    assert Meter(budget=budget).take(request(2), SAMPLING)  # one's own machine costs nothing


def test_the_run_stops_where_the_next_request_could_exceed_the_budget():
    # Given requests that can take 200 tokens and take 50
    budget = Budget(max_tokens=400)
    engine = Counting(itertools.repeat((40, 10)), budget=budget)

    answers, usage, reached = ask_all(engine, 99, Meter(budget=budget))

    # Then one is sent while 200 more fit: after 0, 50, 100, 150 and 200 tokens, none after 250.
    assert answers == [0, 1, 2, 3, 4]
    assert (usage.answered, engine.sent, budget.spent.tokens, budget.under_way) == (5, 5, 250, Amount())
    assert "--max_tokens_total 400: reached, 250 tokens spent in this run" in str(reached)


def test_what_is_under_way_takes_less_than_it_could_so_that_more_waves_follow():
    # Given an engine that would take 8 at a time, and money for two bounds
    budget = Budget(max_tokens=2 * BOUND)
    engine = Counting(itertools.repeat((5, 5)), batch=8, budget=budget)

    answers, _, reached = ask_all(engine, 99, Meter(budget=budget))

    # Then it goes on until not even one fits, which since the first replies is bound by a quarter of its 20 bytes and a
    # quarter more, the template and the answer: 6.25 + 64 + 100. Up to 229.75 tokens may be spent before the last.
    assert reached
    assert budget.spent.tokens == 10 * len(answers) == 230


def test_retries_count_and_wait_for_their_money_like_all_others():
    budget = Budget(max_tokens=2 * BOUND)
    engine = Counting(itertools.repeat((80, 100)), budget=budget)

    answers, usage, reached = ask_all(engine, 1, Meter(budget=budget), parse=lambda texts: None, max_tries=9)

    # 180 each: two fit, a third does not. It is not given up, it has only not been asked.
    assert reached
    assert (answers, engine.sent, usage.retried, usage.failed, budget.spent.tokens) == ([], 2, 2, {}, 360)


def test_a_budget_below_one_request_is_an_error_and_nothing_is_sent():
    engine = Counting([])

    with pytest.raises(
        UserError, match=r"--max_tokens_total 199: less than the first request may take: 200 tokens, 100"
    ):
        ask_all(engine, 1, Meter(budget=Budget(max_tokens=199)))

    assert engine.sent == 0


def test_replies_without_a_count_are_estimated():
    budget = Budget(max_tokens=10_000)
    meter = Meter(budget=budget)
    meter.take(request(0, "x" * 60), SAMPLING)

    # 60 bytes of prompt and 30 of answer, a token for every 3
    assert meter.settle(Reply(0, ["y" * 30]), SAMPLING) == (20, 10, True)
    # a server that counts once shows what its tokens are: 30 of 60 bytes
    meter.take(request(1, "x" * 60), SAMPLING)
    assert meter.settle(Reply(1, ["y" * 30], 30, 8), SAMPLING) == (30, 8, False)
    meter.take(request(2, "x" * 60), SAMPLING)
    assert meter.settle(Reply(2, ["y" * 30]), SAMPLING) == (30, 10, True)
    # an answer that was cut off is as long as it may be, though nothing of it is left
    meter.take(request(3, "x" * 60), SAMPLING)
    assert meter.settle(Reply(3, [], error=CUT_OFF), SAMPLING) == (30, 100, True)
    # a refusal costs nothing
    meter.take(request(4), SAMPLING)
    assert meter.settle(Reply(4, [], error="HTTP 400"), SAMPLING) == (0, 0, False)


def test_the_summary_says_what_was_estimated():
    usage = Usage()
    usage.count(20, 10, True)
    usage.count(30, 8, False)

    assert usage.rows()[-1] == ("tokens in / out", "50 / 18, estimated for 1 replies without a count")


def test_each_of_several_answers_may_cost_its_prompt():
    meter = Meter(budget=Budget(max_tokens=3 * BOUND - 1))

    assert not meter.take(request(0), Sampling(temperature=1.0, top_p=1.0, max_tokens=100, n=3))
    assert meter.take(request(0), Sampling(temperature=1.0, top_p=1.0, max_tokens=100, n=2))


def test_a_prompt_that_is_added_on_the_way_counts():
    budget = Budget(max_tokens=BOUND + 10)

    assert Meter(budget=budget).with_prompt("ten bytes!").take(request(0), SAMPLING)
    assert budget.under_way.tokens == BOUND + 10


@given(
    costs=st.lists(st.tuples(st.integers(1, 84), st.integers(1, 100)), min_size=40, max_size=40),
    max_tokens=st.integers(BOUND, 3000),
    batch=st.integers(1, 9),
)
def test_however_much_replies_take_no_more_than_the_budget_is_spent(costs, max_tokens, batch):
    # Given replies that take no more than their bound; the engine looks at what is under way whenever it sends
    budget = Budget(max_tokens=max_tokens)
    engine = Counting(costs, batch=batch)
    most = []
    before = Budget.take

    def take(self, amount):
        taken = before(self, amount)
        most.append(self.spent.tokens + self.under_way.tokens)
        return taken

    Budget.take = take
    try:
        answers, _, reached = ask_all(engine, 40, Meter(budget=budget))
    finally:
        Budget.take = before

    assert max(most) <= max_tokens
    assert len(answers) == engine.sent
    assert (reached is None) == (len(answers) == 40)
    assert budget.under_way == Amount()
    # The bound is learned from replies before: one that is larger than all of them may exceed it, by less than itself.
    assert budget.spent.tokens <= max_tokens + 184 * batch


def test_one_side_waits_for_what_the_other_has_under_way():
    # Given two engines on one budget, of which the other holds most
    budget = Budget(max_tokens=2 * BOUND)
    other = Meter(budget=budget)
    other.take(request(0, "x" * 40), SAMPLING)
    done = []
    meter = Meter(budget=budget)
    waiting = threading.Thread(target=lambda: done.append(ask_all(Counting([(20, 10)]), 1, meter)[0]))
    waiting.start()

    # When that is answered with less, the one that waits goes on
    other.settle(Reply(0, ["fine"], 40, 10), SAMPLING)
    waiting.join(timeout=30)

    assert done == [[0]]
    assert budget.spent.tokens == 50 + 30


def test_what_a_failed_engine_had_under_way_is_given_back():
    class Dying(Counting):
        def generate(self, requests, sampling):
            next(requests)
            raise UserError("the server is gone")
            yield

    budget = Budget(max_tokens=BOUND)
    with pytest.raises(UserError, match="gone"):
        ask_all(Dying([]), 5, Meter(budget=budget))

    assert budget.under_way == Amount()


def test_a_server_is_never_asked_for_more_than_the_budget(make_engine):
    # Given 8 requests at a time to a server for which a word is a token; every answer has two
    budget = Budget(max_tokens=1500)
    with FaultServer() as server:
        engine = make_engine(server, concurrency=8)
        answers, usage, reached = ask_all(engine, 500, Meter(budget=budget))

    counted = sum(len(message["content"].split()) + 2 for call in server.calls for message in call.body["messages"])
    assert reached
    assert server.received == len(answers) == usage.answered
    assert counted == budget.spent.tokens <= 1500
    assert counted > 1500 - BOUND


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({"max_usd": 0.0}, "--max_usd 0: a number above 0 is needed"),
        ({"max_usd": -1.0}, "--max_usd -1: a number above 0 is needed"),
        ({"max_usd": float("nan")}, "--max_usd nan: a number above 0 is needed"),
        ({"max_usd": float("inf")}, "--max_usd inf: a number above 0 is needed"),
        ({"max_tokens_total": 0}, "--max_tokens_total 0: a whole number from 1 is needed"),
        ({"max_tokens_total": -5}, "--max_tokens_total -5: a whole number from 1 is needed"),
    ],
)
def test_what_is_no_budget_is_refused(flags, error):
    with pytest.raises(UserError, match=error):
        budget_of(Namespace(**{"max_usd": None, "max_tokens_total": None, **flags}))


def engine_flags(**flags):
    given = {"engine": "auto", "base_url": None, "model": None, "price_in": None, "price_out": None, **flags}
    return Namespace(**{f"eval_{name}": value for name, value in given.items()})


def test_flags_override_the_tables_and_the_tables_fill_in_what_flags_leave_open():
    qwen = engine_flags(engine="tinker")
    assert prices_of(qwen, prefix="eval_", model_path="Qwen/Qwen3-8B") == of_tinker("Qwen/Qwen3-8B")
    half = engine_flags(engine="tinker", price_out=7.0)
    assert prices_of(half, prefix="eval_", model_path="Qwen/Qwen3-8B") == Prices(0.195, 7.0)
    openai = engine_flags(base_url="https://api.openai.com/v1", model="gpt-4o-mini", price_in=1.0, price_out=2.0)
    assert prices_of(openai, prefix="eval_", model_path=None) == Prices(1.0, 2.0)


def test_a_local_model_costs_nothing_and_the_run_says_which_flags_would_change_that(capsys):
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser, part="policy", prefix="eval_", offline=False)
    add_job_arguments(parser)
    add_budget_arguments(parser)

    def settings(*flags):
        arguments = parser.parse_args(["--eval_engine=transformers", "--max_usd=1", *flags])
        model = {"model_path": "org/model", "model_flag": "--eval_model_path"}
        return job_settings(arguments, prefix="eval_", **model, budget=budget_of(arguments))

    assert settings().meter.prices is None
    said = (
        "the transformers engine costs nothing without --eval_price_in and --eval_price_out; --max_tokens_total limits"
    )
    assert said in capsys.readouterr().err
    assert settings("--eval_price_in=1", "--eval_price_out=2").meter.prices == Prices(1.0, 2.0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "model_path", "missing"),
    [
        ({"base_url": "http://127.0.0.1:8000/v1", "model": "gpt-4o"}, None, "--eval_price_in and --eval_price_out"),
        ({"base_url": "http://h/v1", "model": "m", "price_in": 1.0}, None, "pass --eval_price_out, USD"),
        ({"engine": "tinker"}, "org/not-listed", "what org/not-listed costs there; pass --eval_price_in and"),
    ],
)
def test_a_budget_of_money_without_prices_names_the_flags(flags, model_path, missing):
    with pytest.raises(UserError, match="^--max_usd: .*" + missing):
        prices_of(engine_flags(**flags), prefix="eval_", model_path=model_path, required_by="--max_usd")


def test_every_tinker_price_has_a_source_and_a_date_and_cached_prefill_is_a_fifth():
    table = tinker_prices()

    assert (table["Qwen/Qwen3-8B"].prefill, table["Qwen/Qwen3-8B"].sample, table["Qwen/Qwen3-8B"].train) == (
        0.195,
        0.60,
        0.44,
    )
    for price in table.values():
        assert price.source
        assert price.date.year == 2026
        assert price.cached_prefill is None or price.cached_prefill == pytest.approx(price.prefill / 5)
    assert of_tinker("org/not-listed") is None


def test_an_endpoint_has_litellms_prices_where_the_host_is_one_it_lists():
    pytest.importorskip("litellm")

    known = of_endpoint("https://api.openai.com/v1", "gpt-4o-mini")
    assert known is not None
    assert (known.tokens_in, known.tokens_out) == (pytest.approx(0.15), pytest.approx(0.60))
    assert "LiteLLM" in known.source
    assert of_endpoint("https://openrouter.ai/api/v1", "openai/gpt-4o") is not None
    # several servers must charge the same
    assert of_endpoint("https://api.openai.com/v1 https://eu.api.openai.com/v1", "gpt-4o-mini") == known
    assert of_endpoint("https://api.openai.com/v1 http://127.0.0.1:8000/v1", "gpt-4o-mini") is None
    # the same name elsewhere costs something else, or nothing
    assert of_endpoint("http://127.0.0.1:8000/v1", "gpt-4o-mini") is None
    assert of_endpoint("https://api.openai.com/v1", "no-such-model") is None
