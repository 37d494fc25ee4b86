"""What every engine takes and gives back."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

from tuner.learn_to_ask.errors import UserError

# The error of a conversation whose system prompt and last message alone exceed the context.
PROMPT_TOO_LONG = "prompt too long"
# Why an answer that did not come to its end is none.
CUT_OFF = "cut off at max_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample an answer.

    Attributes:
        temperature: 0 for greedy.
        top_p: Nucleus size in (0, 1].
        max_tokens: Longest answer.
        repetition_penalty: 1.0 for none.
        n: Answers to each conversation.
    """

    temperature: float
    top_p: float
    max_tokens: int
    repetition_penalty: float = 1.0
    n: int = 1


Applied = dict[str, float | None]  # what an engine does with temperature, top_p, max_tokens, repetition_penalty


def as_asked(sampling: Sampling) -> Applied:
    """What an engine applies that knows all of it."""
    values = asdict(sampling)
    del values["n"]
    return values


def not_applied(sampling: Sampling, applied: Applied) -> str:
    """What of a sampling is not applied as it was asked for, for showing; `""` when all is."""
    return ", ".join(
        f"{name} {value:g} ({'left out' if applied[name] is None else f'is {applied[name]:g}'})"
        for name, value in as_asked(sampling).items()
        if value is not None and applied[name] != value
    )


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to answer; `key` comes back with the reply."""

    key: int
    messages: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers to one request.

    Attributes:
        key: The request's key.
        texts: `Sampling.n` answers without special tokens, fewer after an error.
        prompt_tokens: Tokens read, 0 where an engine does not count them.
        completion_tokens: Tokens written over all answers, likewise.
        error: Why there is no answer, `""` when there is one.
        final: Asking again would end the same way.
        cut_off: Which of the texts did not come to their end within `Sampling.max_tokens`; empty for none.
    """

    key: int
    texts: list[str]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    final: bool = False
    cut_off: tuple[bool, ...] = ()


class EngineDiedError(UserError):
    """What held the model is gone, whatever it was asked; another one could still answer."""


class Engine(Protocol):
    """Answers conversations: as many at a time as suits it, in whatever order they finish."""

    description: str  # what answers, for logs and fingerprints: "transformers:/path/to/model"

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields one reply for each request.

        Args:
            requests: Pulled lazily, never more than the engine can work on ahead.
            sampling: The same for all.
        """
        ...

    def applied(self, sampling: Sampling) -> Applied:
        """What the model gets of a sampling, by what is known now; `None` for a value that it does not get."""
        ...

    def summary(self) -> list[tuple[str, object]]:
        """Label and value of what else is worth telling when a run ends."""
        ...

    def close(self) -> None:
        """Frees memory, connections and devices; the engine is of no use afterwards."""
        ...
