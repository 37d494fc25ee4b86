"""Who answers as the users of a log: rules, or a model that only chooses which notes a question is about."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tuner.learn_to_ask.core.records import Turn
from tuner.learn_to_ask.core.responses import strip_reasoning
from tuner.learn_to_ask.engines.base import Engine, Request, Sampling
from tuner.learn_to_ask.engines.budget import Meter
from tuner.learn_to_ask.engines.retrying import Usage, ask
from tuner.learn_to_ask.evaluation.patient import Patient, answer, notes, tell
from tuner.learn_to_ask.prompt import choosing_messages

RULES = "rules"  # as the interview file names who answered
CHOICE_SAMPLING = Sampling(temperature=0.3, top_p=0.9, max_tokens=512)
_LIST = re.compile(r"\A(?:```(?:json)?\s*)?(\[[\d\s,]*\])(?:\s*```)?\Z")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that waits for its answer.

    Attributes:
        key: Comes back with the answer.
        patient: Who is asked.
        question: Whatever was said.
        known: Facts that came to light before.
    """

    key: int
    patient: Patient
    question: str
    known: frozenset[int]


Answers = Callable[[Iterable[Asked]], Iterator[tuple[int, Turn | None]]]  # `None`: no answer could be had


def by_rules(asked: Iterable[Asked]) -> Iterator[tuple[int, Turn | None]]:
    """Answers every question by rules, in order."""
    for each in asked:
        yield each.key, answer(each.patient, each.question, each.known)


@dataclass(slots=True, kw_only=True)
class ByModel:
    """Answers with what a model chooses; it cannot tell anything that is not among the notes.

    Attributes:
        engine: The model.
        max_retries: Fresh tries after a reply that is no list of numbers.
        usage: Counts what was asked for.
        meter: Of the engine, where the run has a budget.
    """

    engine: Engine
    max_retries: int
    usage: Usage = field(default_factory=Usage)
    meter: Meter | None = None

    def __call__(self, asked: Iterable[Asked]) -> Iterator[tuple[int, Turn | None]]:
        """Answers as the model's choices come; who says nothing is told nothing, without asking the model.

        Raises:
            BudgetReachedError: As `retrying.ask` does.
        """
        waiting = {each.key: each for each in asked}
        for key in [key for key, each in waiting.items() if not each.question.strip()]:
            silent = waiting.pop(key)
            yield key, tell(silent.patient, silent.question, [])
        requests = [
            Request(key, choosing_messages(notes(each.patient), each.question, each.patient.domain))
            for key, each in waiting.items()
        ]
        for reply in ask(
            self.engine,
            requests,
            sampling=CHOICE_SAMPLING,
            parse=_first_choice,
            max_tries=1 + self.max_retries,
            usage=self.usage,
            meter=self.meter,
        ):
            one = waiting[reply.key]
            count = len(notes(one.patient))
            chosen = None if reply.value is None else [note - 1 for note in reply.value if 1 <= note <= count]
            yield reply.key, None if chosen is None else tell(one.patient, one.question, chosen)


def _first_choice(texts: list[str]) -> list[int] | None:
    """What the reply chooses, see `parse_choice`."""
    return parse_choice(texts[0])


def parse_choice(text: str) -> list[int] | None:
    """The numbers that a reply chooses, `None` when it is anything but one list of whole numbers.

    Args:
        text: Of the model, with or without reasoning or a code fence.
    """
    found = _LIST.match(strip_reasoning(text).strip())
    try:
        return None if found is None else [int(number) for number in json.loads(found[1])]
    except ValueError:
        return None
