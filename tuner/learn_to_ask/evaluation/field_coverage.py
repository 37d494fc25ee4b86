"""Which fields of the reference information a question asks for: by shared words, without a grader."""

from collections import Counter
from collections.abc import Sequence

from tuner.learn_to_ask.core.records import Message
from tuner.learn_to_ask.core.words import COMMON_WORDS, words_of
from tuner.learn_to_ask.engines.question_rules import count_questions
from tuner.learn_to_ask.evaluation.patient import facts_about, facts_of

NO_FIELD = "(no field)"


def field_of(item: str) -> str:
    """The field of a `field: value` item in lower case, with spaces; `NO_FIELD` where none is written."""
    field, colon, _ = item.replace("：", ":", 1).partition(":")
    return " ".join(field.lower().replace("_", " ").split()) if colon and field.strip() else NO_FIELD


def item_words(
    items: Sequence[str], context: Sequence[Message], dialogue: Sequence[Message], *, excluded: str = ""
) -> list[frozenset[str]]:
    """For each item the stems by which a question is about it, see `patient.facts_of`.

    Args:
        items: `field: value`, the reference information of a sample.
        context: Of the sample.
        dialogue: The longest context of its session, in which what followed is known; of another dialogue nothing is.
        excluded: What never counts as information in the domain, in words, `""` where it is not known.
    """
    future = dialogue[len(context) :] if list(dialogue[: len(context)]) == list(context) else ()
    return facts_of(items, context, future, excluded=excluded)[1]


def asked_items(words: Sequence[frozenset[str]], message: str) -> list[int]:
    """Positions of the items that a message asks for, by the rule of the user of a whole interview.

    At most one item for each question, the one that shares most.

    Args:
        words: Of the items, see `item_words`.
        message: Of a policy that went on asking.
    """
    about = facts_about(words, words_of(message, COMMON_WORDS))
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
