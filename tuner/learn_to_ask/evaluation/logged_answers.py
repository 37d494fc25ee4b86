"""Where in a log an extracted item was said, found without a vocabulary: by shared words and by the order of things."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tuner.learn_to_ask.core.records import Message
from tuner.learn_to_ask.core.segmentation import runs
from tuner.learn_to_ask.core.words import COMMON_WORDS, words_of
from tuner.learn_to_ask.engines.question_rules import asks

_CLAUSES = re.compile(r"[.!?;\n。！？；]+|,\s|，|\band\b")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message of the logged user, and the question that it answers, `""` where the log does not tell which."""

    question: str
    answer: str


def exchanges(future: Sequence[Message]) -> list[Exchange]:
    """Every message of the user after the opening, with its question where there are as many of both."""
    found: list[Exchange] = []
    questions: list[str] = []
    for role, said in runs(future):
        if role == "assistant":
            questions = [text for text in said if asks(text)]
        elif len(questions) == len(said):
            found += map(Exchange, questions, said)
        else:
            found += [Exchange("", text) for text in said]
    return found


def places(items: Sequence[str], spoken: Sequence[Exchange], *, excluded: str) -> list[Exchange | None]:
    """Where each item was said, `None` where the log does not tell.

    Items that share words with an exchange belong there. Between two of those, items and exchanges are in the same
    order, and go together where there are as many of both.

    Args:
        items: `field: value`, in the order in which they were extracted.
        spoken: The exchanges of the log.
        excluded: What never counts as information, in words: nothing goes to such a question by its order alone.
    """
    never = words_of(excluded, COMMON_WORDS)
    found: list[int | None] = [_closest(item, spoken) for item in items]
    telling = [_may_tell(each, never) for each in spoken]
    start, before = 0, -1
    for index, place in enumerate([*found, len(spoken)]):
        if place is None:
            continue
        free = [each for each in range(before + 1, place) if telling[each] and each not in found]
        if len(free) == index - start:
            found[start:index] = free
        start, before = index + 1, place
    return [None if place is None else spoken[place] for place in found]


def _may_tell(exchange: Exchange, never: frozenset[str]) -> bool:
    """Whether an answer says something, unlike "thank you", to a question about what may count."""
    asked, said = (telling_words(text) for text in (exchange.question, exchange.answer))
    return bool(exchange.question and said and not asked & never)


def _closest(item: str, spoken: Sequence[Exchange]) -> int | None:
    """The exchange that shares most words with an item, those of the answer counted twice."""
    value = telling_words(value_of(item))
    shared = [
        2 * len(value & telling_words(each.answer)) + len(value & telling_words(each.question)) for each in spoken
    ]
    return shared.index(max(shared)) if max(shared, default=0) else None


def said_alone(item: str, exchange: Exchange | None, *, shared: bool) -> str:
    """The user's own words for one item, without those for another; `""` where they cannot be told apart."""
    if exchange is None or not shared:
        return exchange.answer.strip() if exchange else ""
    value = telling_words(value_of(item))
    clauses = [clause.strip() for clause in _CLAUSES.split(exchange.answer) if clause.strip()]
    fitting = [clause for clause in clauses if value & telling_words(clause)]
    return fitting[0] if len(fitting) == 1 and len(clauses) > 1 else ""


def value_of(item: str) -> str:
    """An item without its field."""
    field, colon, value = item.partition(":")
    return value.strip() if colon and value.strip() else field.strip()


@lru_cache(maxsize=512)
def telling_words(text: str) -> frozenset[str]:
    """The telling words of a text; the same ones come again for every item and sample of a session."""
    return words_of(text, COMMON_WORDS)
