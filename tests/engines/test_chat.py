"""Conversations fitted to chat templates that are strict, with real templates in Jinja."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.agent import react_reply
from tuner.learn_to_ask.engines.chat import ChatEncoder, Fitting, check_end_token, fit_messages, needed_fitting
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.prompt import rollout_prompt

ALTERNATE = (
    "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
    "[{{ message['role'] }}] {{ message['content'] }}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + ALTERNATE
)
ANY = "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}{% endfor %}"
NEVER = "{{ raise_exception('no') }}"


class Tokenizer:
    """As much of a Hugging Face tokenizer as an encoder needs: the template is rendered by transformers."""

    all_special_tokens = ("<start>", "<end>", "<turn>")
    eos_token = "<end>"

    def __init__(self, template):
        self.chat_template = template

    def get_added_vocab(self):
        return {}

    def convert_tokens_to_ids(self, token):
        return self.all_special_tokens.index(token)

    def apply_chat_template(self, messages, **_):
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered, _ = render_jinja_template(conversations=[messages], chat_template=self.chat_template)
        return rendered[0]

    def __call__(self, text, **_):
        return {"input_ids": list(text.encode())}


def chat(*turns):
    roles = {"s": "system", "p": "user", "d": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]


@pytest.mark.parametrize(
    ("template", "fitting"),
    [(ANY, Fitting.NONE), (ALTERNATE, Fitting.FOLD_GREETING), (NO_SYSTEM, Fitting.FOLD_SYSTEM)],
)
def test_a_template_gets_as_much_fitting_as_it_needs(template, fitting):
    assert needed_fitting(Tokenizer(template), "m") == fitting


@pytest.mark.parametrize(
    ("fitting", "expected"),
    [
        (Fitting.NONE, chat("sask", "dhello", "pcough", "psince monday", "ddry?", "pyes")),
        (Fitting.JOIN_RUNS, chat("sask", "dhello", "pcough\nsince monday", "ddry?", "pyes")),
        (Fitting.FOLD_GREETING, chat("sask", "pdoctor: hello\ncough\nsince monday", "ddry?", "pyes")),
        (Fitting.FOLD_SYSTEM, chat("pask\n\ndoctor: hello\ncough\nsince monday", "ddry?", "pyes")),
    ],
)
def test_nothing_is_lost_in_the_fitting(fitting, expected):
    conversation = chat("sask", "dhello", "pcough", "psince monday", "ddry?", "pyes")
    assert fit_messages(conversation, fitting) == expected


@given(
    st.lists(st.sampled_from(["pa", "db"]), min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from([ALTERNATE, NO_SYSTEM]),
)
def test_every_dialogue_fits_a_strict_template(turns, system, template):
    tokenizer = Tokenizer(template)
    conversation = chat(*(["sask"] if system else []), *turns)
    fitted = fit_messages(conversation, needed_fitting(tokenizer, "m"))
    assert "[user]" in tokenizer.apply_chat_template(fitted)
    for role, letter in (("user", "a"), ("assistant", "b")):
        written = sum(message["content"].count(letter) for message in conversation if message["role"] == role)
        assert sum(message["content"].replace("ask", "").count(letter) for message in fitted) >= written


def test_a_prompt_that_is_shortened_still_fits_the_template():
    encoder = ChatEncoder(Tokenizer(ALTERNATE), "m")
    ids, shortened = encoder.encode(chat("sask", *("pcough", "dsince when?") * 20, "pmonday"), max_prompt_tokens=100)
    assert shortened
    assert bytes(ids).startswith(b"[user]")
    assert len(ids) <= 100


@pytest.mark.parametrize(("template", "said"), [(None, "no chat template.*instruct"), (NEVER, "refuses.*no")])
def test_a_model_that_takes_no_conversation_is_named_with_what_to_choose(template, said):
    with pytest.raises(UserError, match=rf"model m: .*{said}"):
        ChatEncoder(Tokenizer(template), "m")


def test_the_agent_hands_its_model_a_conversation_that_fits():
    import asyncio

    from agentscope.message import TextBlock
    from agentscope.model import ChatModelBase, ChatResponse

    seen = []

    class Model(ChatModelBase):
        async def __call__(self, prompt, **_):
            seen.extend(prompt)
            return ChatResponse(content=[TextBlock(type="text", text="Is it dry?")])

    fit = partial(fit_messages, fitting=Fitting.FOLD_SYSTEM)
    reply = asyncio.run(react_reply(chat("dhello", "pcough", "psince monday"), Model("m", stream=False), "Ra+Rs", fit))

    assert reply == "Is it dry?"
    (message,) = seen
    assert message["role"] == "user"
    assert message["content"].endswith("\n\ndoctor: hello\ncough\nsince monday")
    assert message["content"].startswith(rollout_prompt("Ra+Rs"))


def ended_by(token):
    return (
        "{% for message in messages %}<start>{{ message['role'] }}: {{ message['content'] }}" + token + "{% endfor %}"
    )


@pytest.mark.parametrize("end", ["<end>", "<end>\n", " <end>", "", "\n"])
def test_an_answer_that_ends_with_the_end_token_or_with_none_is_fine(end):
    check_end_token(Tokenizer(ended_by(end)), "m", Fitting.NONE)


def test_an_end_token_that_no_answer_ends_with_is_one_line():
    tokenizer = Tokenizer(ended_by("<turn>\n"))
    tokenizer.eos_token = "<start>"  # as a conversion of SmolLM2 from GGUF leaves it

    with pytest.raises(UserError, match=r"model m: its end token is <start>, but .* <turn>.* as eos_token into"):
        ChatEncoder(tokenizer, "m")


def test_an_end_token_of_the_generation_config_counts_too(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')  # as Gemma has it

    check_end_token(Tokenizer(ended_by("<turn>")), str(tmp_path), Fitting.NONE)
