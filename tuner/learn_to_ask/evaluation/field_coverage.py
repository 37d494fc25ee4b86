"""Which fields of the reference information a question asks for: by shared words, without a grader."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from tuner.learn_to_ask.core.words import COMMON_WORDS, words_of
from tuner.learn_to_ask.engines.question_rules import count_questions
from tuner.learn_to_ask.evaluation.patient import facts_about

NO_FIELD = "(no field)"


def field_of(item: str) -> str:
    """The field of a `field: value` item in lower case, with spaces; `NO_FIELD` where none is written."""
    field, colon, _ = item.replace("：", ":", 1).partition(":")
    return " ".join(field.lower().replace("_", " ").split()) if colon and field.strip() else NO_FIELD


def asked_items(items: Sequence[str], message: str) -> list[int]:
    """Positions of the items that a message asks for.

    The rule is that of the user of a whole interview, see `patient.facts_about`, with nothing but the items' own words
    to go by: at most one item for each question, the one that shares most. It misses a question that shares no word
    with its item, such as "how high is it?" for "severity: 39".

    Args:
        items: `field: value`.
        message: Of a policy that went on asking.
    """
    about = facts_about([_words(item) for item in items], words_of(message, COMMON_WORDS))
    return about if len(about) < 2 else about[: max(1, count_questions(message))]


def shares_asked(items: Sequence[str], asked: Sequence[int]) -> dict[str, float]:
    """For each field of the items the share of its items that are asked for, 0 to 1.

    Args:
        items: `field: value`, with fields or without.
        asked: Positions in `items`.
    """
    there = Counter(map(field_of, items))
    hit = Counter(field_of(items[place]) for place in set(asked))
    return {field: hit[field] / count for field, count in there.items()}


@lru_cache(maxsize=4096)
def _words(item: str) -> frozenset[str]:
    """The telling words of an item; the same ones come again in every sample of a session."""
    return words_of(item, COMMON_WORDS)
