"""Asks the grader during training: an auxiliary model, an OpenAI-compatible endpoint or the offline rules."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, get_args

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.grading import parse_grade
from tuner.learn_to_ask.core.reward import Scores
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.engines.base import CUT_OFF, Sampling
from tuner.learn_to_ask.engines.budget import tokens_of
from tuner.learn_to_ask.engines.offline import grade_answer
from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_api import ChatClient, pass_over_unclosed
from tuner.learn_to_ask.engines.retrying import Usage
from tuner.learn_to_ask.errors import UserError

AUXILIARY_MODEL_NAME = "auxiliary_model"
Grader = Literal["auxiliary", "openai", "offline"]
GRADERS: tuple[Grader, ...] = get_args(Grader)

_TRIES = 3  # fresh samples until the scores can be read
_TRANSPORT_RETRIES = 6  # with growing pauses, about half a minute in all
_SECONDS_A_CALL = 120.0
_PAUSES = (1.0, 2.0, 4.0)  # seconds between the calls of an auxiliary model that fails


class GradingError(RuntimeError):
    """The grader gave no usable scores; the rollout is left out of the update instead of getting a made-up reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderSettings:
    """Who grades and how.

    Attributes:
        grader: auxiliary, openai or offline.
        temperature: Of the grader's sampling.
        max_tokens: Longest reply.
        seconds: Longest time for the scores of one rollout, all tries included.
        base_url: Of the endpoint, up to and including `/v1`; of several servers of one model, separated by spaces
            (openai).
        model: The name under which the endpoint offers the model (openai).
        api_key_env: The environment variable that holds the key, on every node that grades (openai).
        extra_json: Fields to add to every request or, with null, to leave out (openai).
    """

    grader: Grader
    temperature: float
    max_tokens: int
    seconds: float = 300.0
    base_url: str = ""
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    extra_json: str = ""


async def ask_grader(
    messages: list[dict[str, str]],
    auxiliary_models: Mapping[str, Any],
    settings: GraderSettings,
    domain: Domain | None = None,
    usage: Usage | None = None,
) -> Scores:
    """Asks until the scores can be read.

    Args:
        messages: As `prompt.grading_messages` makes them.
        auxiliary_models: AgentScope's chat models by name; read by the auxiliary grader only.
        settings: Who to ask.
        domain: Whose vocabulary the offline grader reads; the medical one where none is given.
        usage: Counts the tokens of all tries.

    Raises:
        GradingError: When no reply could be had or read in all tries, or in time.
    """
    reply, usage = "", usage or Usage()
    try:
        async with asyncio.timeout(settings.seconds):
            for _ in range(_TRIES):
                reply = await reply_of_grader(messages, auxiliary_models, settings, domain, usage)
                scores = parse_grade(reply)
                if scores is not None:
                    return scores
    except TimeoutError as error:
        raise GradingError(f"the grader gave no readable scores within {settings.seconds:g} s") from error
    raise GradingError(f"the grader gave no readable scores in {_TRIES} tries, the last reply was {reply[:80]!r}")


async def reply_of_grader(
    messages: list[dict[str, str]],
    auxiliary_models: Mapping[str, Any],
    settings: GraderSettings,
    domain: Domain | None = None,
    usage: Usage | None = None,
) -> str:
    """One reply of the grader; `usage` counts its tokens.

    Raises:
        GradingError: When there is none.
    """
    usage = usage or Usage()
    if settings.grader == "offline":
        return grade_answer(messages, domain or default_domain())
    # Given with every call because TunerModelConfig.temperature never reaches the engine.
    temperature, max_tokens = settings.temperature, settings.max_tokens
    if settings.grader == "auxiliary":
        model = auxiliary_models[AUXILIARY_MODEL_NAME]
        ask = partial(model, messages, seed=secrets.randbits(31), temperature=temperature, max_tokens=max_tokens)
        response = await _with_retries(ask)
        text = "".join(block["text"] for block in response.content if block["type"] == "text")
        told = getattr(response, "usage", None)  # Trinity's engine on Tinker tells nothing
        usage.count(*tokens_of(messages, [text], told.input_tokens if told else 0, told.output_tokens if told else 0))
        return text
    try:
        client = _client(settings, asyncio.get_running_loop())
    except UserError as error:
        raise GradingError(f"the grader at {settings.base_url} cannot be asked: {error}") from error
    return await _reply_of(client, messages, settings, usage)


async def _reply_of(client: ChatClient, messages: list[dict[str, str]], settings: GraderSettings, usage: Usage) -> str:
    """One reply of an endpoint.

    Raises:
        GradingError: When there is none.
    """
    answers = await client.ask(messages, _sampling(settings))
    if error := answers.failure:
        usage.count(answers.prompt_tokens, answers.completion_tokens)
        if error.trouble == "answer":
            return error.reason  # not readable either: asked again
        said = f"{error.said} - {client.advice(error)}"
        raise GradingError(f"the grader at {error.address.base_url} failed: {said}") from error
    usage.count(*tokens_of(messages, answers.texts, answers.prompt_tokens, answers.completion_tokens))
    return CUT_OFF if answers.cut_off[0] else answers.texts[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a grader said to one prompt, and what was changed in the request to please its server."""

    reply: str
    fitted: tuple[str, ...] = ()


def try_grader(messages: list[dict[str, str]], settings: GraderSettings, domain: Domain | None = None) -> Trial:
    """Asks a grader that can be reached before the start once, as training would.

    Raises:
        GradingError: When it does not answer.
        UserError: When its address or key cannot be used, or one of its servers refuses or offers another model.
    """
    if settings.grader == "offline":
        return Trial(grade_answer(messages, domain or default_domain()))

    async def ask() -> Trial:
        client = ChatClient(_endpoint(settings))
        try:
            await client.check(_sampling(settings))
            reply = await _reply_of(client, messages, settings, Usage())
            return Trial(reply, tuple(client.fitted))
        finally:
            await client.close()

    return asyncio.run(ask())


async def _with_retries(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Calls an auxiliary model again after an error; nothing below it does.

    Raises:
        GradingError: When every call fails.
    """
    for pause in (*_PAUSES, None):
        try:
            return await ask()
        except Exception as error:  # of vLLM, Tinker, Ray or the client: whatever engine the model runs on
            if pause is None:
                raise GradingError(f"the auxiliary model failed: {type(error).__name__}") from error
            await asyncio.sleep(pause)
    raise AssertionError("the last call returns or raises")


@lru_cache(maxsize=1)
def _client(settings: GraderSettings, loop: asyncio.AbstractEventLoop) -> ChatClient:
    """One client for each event loop, to which its connections belong."""
    pass_over_unclosed(loop)  # which Trinity or asyncio.run() ends without a word to the client
    return ChatClient(_endpoint(settings))


def _sampling(settings: GraderSettings) -> Sampling:
    """How an endpoint samples."""
    return Sampling(temperature=settings.temperature, top_p=1.0, max_tokens=settings.max_tokens)


def _endpoint(settings: GraderSettings) -> Endpoint:
    """Where the openai grader is."""
    return Endpoint(
        base_url=settings.base_url,
        model=settings.model,
        api_key_env=settings.api_key_env,
        read_timeout=_SECONDS_A_CALL,
        max_retries=_TRANSPORT_RETRIES,
        extra_json=settings.extra_json,
    )
