"""The agent as an engine: what reaches the model, what comes back, and that nothing is lost or asked twice."""

import asyncio
import json

import pytest
from fault_server import Fault, FaultServer
from test_main import CONTINUE_TASK, ListedModel

from tuner.learn_to_ask import main
from tuner.learn_to_ask.engines.base import PROMPT_TOO_LONG, Reply, Request, Sampling
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine
from tuner.learn_to_ask.engines.react import ReactEngine, plain_message
from tuner.learn_to_ask.engines.retrying import Usage, ask
from tuner.learn_to_ask.prompt import rollout_messages

THREE = Sampling(temperature=1.0, top_p=0.95, max_tokens=64, repetition_penalty=1.2, n=3)
DIALOGUE = [
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "i have a cough"},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "<think>odd</think> since when? {info_truth}"},
    {"role": "user", "content": "  头疼\n\u2028 3 days "},
]


class Recording:
    """An engine that first pulls all it is asked, then answers in an order of its own."""

    description = "recording:model"

    def __init__(self, answer):
        self.answer = answer
        self.asked, self.samplings = [], []
        self.closed = False

    def generate(self, requests, sampling):
        self.samplings.append(sampling)
        pulled = list(requests)
        self.asked.append(pulled)
        for request in reversed(pulled):
            yield self.answer(request)

    def summary(self):
        return [("prompts shortened", 7)]

    def close(self):
        self.closed = True


def counting_answers():
    """Answers that all differ."""
    number = iter(range(1000))
    return lambda request: Reply(request.key, [f"answer {next(number)}"], prompt_tokens=10, completion_tokens=2)


def requests(count):
    return [Request(100 + key, [{"role": "user", "content": f"patient {key}"}]) for key in range(count)]


@pytest.mark.parametrize("train_mode", ["Ra+Rs", "Ra"])
def test_the_model_gets_what_it_gets_in_training_and_in_direct_rollouts(train_mode):
    # Given a dialogue with a greeting, consecutive and empty messages, and odd characters
    in_training = ListedModel("Is it dry?")
    workflow = main.make_workflow(main.TrainingSettings(train_mode=train_mode))
    asyncio.run(workflow({**CONTINUE_TASK, "messages": DIALOGUE}, in_training, {"auxiliary_model": ListedModel()}))
    # When the agent rolls out in the evaluation
    engine = Recording(counting_answers())
    list(ReactEngine(engine, train_mode).generate([Request(0, DIALOGUE)], THREE))
    # Then its model is asked the same, which is also what a direct rollout asks: the system prompt, then the dialogue
    [call] = in_training.calls
    assert [
        [plain_message(message) for message in call.messages],
        *(request.messages for request in engine.asked[0]),
    ] == [rollout_messages(DIALOGUE, train_mode)] * 4


def test_every_request_gets_n_answers_of_agents_of_its_own_in_one_batch():
    engine = Recording(counting_answers())

    replies = list(ReactEngine(engine, "Ra+Rs").generate(requests(5), THREE))

    assert sorted(reply.key for reply in replies) == [100, 101, 102, 103, 104]
    assert sorted(text for reply in replies for text in reply.texts) == sorted(f"answer {n}" for n in range(15))
    assert all((len(reply.texts), reply.prompt_tokens, reply.completion_tokens) == (3, 30, 6) for reply in replies)
    # The engine could see all 15 questions at once, each with the sampling of the run but for one answer.
    assert [len(asked) for asked in engine.asked] == [15]
    assert engine.samplings == [Sampling(temperature=1.0, top_p=0.95, max_tokens=64, repetition_penalty=1.2, n=1)]


def test_requests_are_pulled_only_as_the_engine_asks_for_them():
    pulled = []

    def watched():
        for request in requests(100):
            pulled.append(request.key)
            yield request

    replies = ReactEngine(OfflineEngine(lambda messages: "ok"), "Ra").generate(watched(), THREE)
    next(replies)

    assert len(pulled) == 1
    replies.close()


def test_answers_that_are_there_are_kept_when_others_of_the_group_have_to_be_asked_for_again():
    # Given an engine that fails twice
    failures = [True, True]

    def fails_twice(request):
        if failures:
            failures.pop()
            return Reply(request.key, [], prompt_tokens=10, error="HTTP 500")
        return Reply(request.key, ["fine"], prompt_tokens=10, completion_tokens=1)

    engine, usage = Recording(fails_twice), Usage()
    answers = ask(
        ReactEngine(engine, "Ra+Rs"), requests(1), sampling=THREE, parse=lambda texts: texts, max_tries=2, usage=usage
    )
    # Then only these two are asked for again, and nothing is counted twice
    assert [answer.value for answer in answers] == [["fine"] * 3]
    assert [len(asked) for asked in engine.asked] == [3, 2]
    assert (usage.answered, usage.retried, usage.prompt_tokens) == (1, 1, 50)


def test_a_prompt_that_can_never_fit_is_given_up():
    engine = Recording(lambda request: Reply(request.key, [], error=PROMPT_TOO_LONG, final=True))

    [reply] = ReactEngine(engine, "Ra+Rs").generate(requests(1), THREE)

    assert (reply.key, reply.texts, reply.error, reply.final) == (100, [], PROMPT_TOO_LONG, True)


def test_a_model_that_says_nothing_gives_an_empty_rollout():
    [reply] = ReactEngine(OfflineEngine(lambda messages: ""), "Ra+Rs").generate(requests(1), THREE)
    assert reply.texts == ["", "", ""]


def test_it_passes_on_what_the_engine_has_to_tell_and_closes_it():
    engine = Recording(counting_answers())
    agents = ReactEngine(engine, "Ra+Rs")
    assert agents.description == "recording:model (ReAct agent)"
    assert agents.summary() == [("prompts shortened", 7)]
    agents.close()
    assert engine.closed


def test_an_interruption_leaves_no_agent_waiting(recwarn):
    def interrupted(request):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(ReactEngine(Recording(interrupted), "Ra+Rs").generate(requests(3), THREE))
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_agents_of_many_dialogues_are_under_way_at_an_endpoint_at_once():
    # Given an endpoint that answers late
    with FaultServer(lambda call: Fault(delay=0.2)) as server:
        engine = OpenAIEngine(Endpoint(base_url=server.base_url, model="m"), concurrency=12)
        replies = list(ReactEngine(engine, "Ra+Rs").generate(requests(8), THREE))
        engine.close()
    # Then agents of more than one dialogue wait for it together, each with a request of its own
    assert 3 < server.max_in_flight <= 12
    assert len(server.calls) == 24
    assert all("n" not in call.body for call in server.calls)
    assert {reply.key: reply.texts for reply in replies} == {100 + k: [f"re: patient {k}"] * 3 for k in range(8)}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ],
)
def test_what_is_no_text_is_refused(message):
    with pytest.raises(ValueError, match="only takes text"):
        plain_message(message)


def test_names_and_blocks_become_plain_text():
    message = {"role": "user", "name": "doctor", "content": [{"type": "text", "text": t} for t in ("a", " b")]}
    assert json.dumps(plain_message(message)) == '{"role": "user", "content": "a b"}'
