"""Asks the grader during training: an auxiliary model, an OpenAI-compatible endpoint or the offline rules."""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, get_args

from tuner.learn_to_ask.core.grading import parse_grade
from tuner.learn_to_ask.core.reward import Scores

AUXILIARY_MODEL_NAME = "auxiliary_model"
Grader = Literal["auxiliary", "openai", "offline"]
GRADERS: tuple[Grader, ...] = get_args(Grader)

_TRIES = 3  # fresh samples until the scores can be read
_TRANSPORT_RETRIES = 6  # the client backs off exponentially and honours Retry-After: about a minute in all
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
        base_url: Of the endpoint, up to and including `/v1` (openai).
        model: The name under which the endpoint offers the model (openai).
        api_key_env: The environment variable that holds the key, on every node that grades (openai).
    """

    grader: Grader
    temperature: float
    max_tokens: int
    seconds: float = 300.0
    base_url: str = ""
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"


async def ask_grader(
    messages: list[dict[str, str]], auxiliary_models: Mapping[str, Any], settings: GraderSettings
) -> Scores:
    """Asks until the scores can be read.

    Args:
        messages: As `prompt.grading_messages` makes them.
        auxiliary_models: AgentScope's chat models by name; read by the auxiliary grader only.
        settings: Who to ask.

    Raises:
        GradingError: When no reply could be had or read in all tries, or in time.
    """
    reply = ""
    try:
        async with asyncio.timeout(settings.seconds):
            for _ in range(_TRIES):
                reply = await reply_of_grader(messages, auxiliary_models, settings)
                scores = parse_grade(reply)
                if scores is not None:
                    return scores
    except TimeoutError as error:
        raise GradingError(f"the grader gave no readable scores within {settings.seconds:g} s") from error
    raise GradingError(f"the grader gave no readable scores in {_TRIES} tries, the last reply was {reply[:80]!r}")


async def reply_of_grader(
    messages: list[dict[str, str]], auxiliary_models: Mapping[str, Any], settings: GraderSettings
) -> str:
    """One reply of the grader.

    Raises:
        GradingError: When there is none.
    """
    if settings.grader == "offline":
        from tuner.learn_to_ask.engines.offline import grade_answer

        return grade_answer(messages)
    # Given with every call because TunerModelConfig.temperature never reaches the engine.
    sampling = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    if settings.grader == "auxiliary":
        ask = partial(auxiliary_models[AUXILIARY_MODEL_NAME], messages, seed=secrets.randbits(31), **sampling)
        response = await _with_retries(ask)
        return "".join(block["text"] for block in response.content if block["type"] == "text")
    import openai

    try:
        completion = await _client(settings.base_url, settings.api_key_env).chat.completions.create(
            model=settings.model,
            messages=messages,
            **sampling,
        )
    except openai.OpenAIError as error:
        raise GradingError(f"the grader at {settings.base_url} failed: {type(error).__name__}") from error
    return (completion.choices[0].message.content or "") if completion.choices else ""


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
def _client(base_url: str, api_key_env: str) -> Any:
    """One client a process: it keeps its connections."""
    from openai import AsyncOpenAI

    # Servers on one's own machine need no key, but the client wants one.
    key = os.environ.get(api_key_env) or "none"
    return AsyncOpenAI(base_url=base_url, api_key=key, max_retries=_TRANSPORT_RETRIES, timeout=_SECONDS_A_CALL)
