"""The user of a logged session who can be asked: answers any question with what the log holds, by rules.

It needs no model and no vocabulary: a question is about a fact when they share telling words. At most one fact comes to
light for each question of a message, so that "tell me everything" earns no more than a good question does.
"""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import fsum

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Fact, Message, Sample, Turn
from tuner.learn_to_ask.core.segmentation import runs, turn_indices
from tuner.learn_to_ask.core.words import COMMON_WORDS, words_of
from tuner.learn_to_ask.engines.question_rules import asks, count_questions
from tuner.learn_to_ask.evaluation.logged_answers import (
    exchanges,
    places,
    said_alone,
    telling_words,
    value_of,
)

_ENOUGH = 0.5  # of a word that is only the fact's own; a word of two facts is half of one


@dataclass(frozen=True, slots=True)
class Patient:
    """Whoever is asked in an interview.

    Attributes:
        opening: The dialogue with which the interview begins.
        facts: What can be found out.
        words: For each fact the stems by which a question is about it.
        opening_words: The same for each message of the user in the opening, and the message.
        domain: How several facts are told at once, and what is said when the log holds nothing.
    """

    opening: tuple[Message, ...]
    facts: tuple[Fact, ...]
    words: tuple[frozenset[str], ...]
    opening_words: tuple[tuple[str, frozenset[str]], ...]
    domain: Domain


def is_first_of_session(sample: Sample) -> bool:
    """Whether a sample's context is only the opening, so that its future is the whole interview."""
    return len(list(turn_indices(sample.messages))) == 1


def items_of(sample: Sample) -> list[str]:
    """What was extracted of a sample's future, each item once."""
    return list(dict.fromkeys(item for item in sample.info_set or () if item.strip()))


def make_patient(sample: Sample, domain: Domain) -> Patient:
    """The user of a session.

    Args:
        sample: The first of the session; its `info_set` holds at least one item.
        domain: Its fields of information and the answer to what is not known.
    """
    facts, words = facts_of(
        items_of(sample), sample.messages, sample.remaining_chat, excluded=domain.information.excluded
    )
    opening = [message["content"] for message in sample.messages if message["role"] == "user"]
    return Patient(
        opening=tuple(sample.messages),
        facts=tuple(facts),
        words=tuple(words),
        opening_words=tuple((said, words_of(said, COMMON_WORDS)) for said in opening),
        domain=domain,
    )


def facts_of(
    items: Sequence[str], context: Sequence[Message], future: Sequence[Message], *, excluded: str
) -> tuple[list[Fact], list[frozenset[str]]]:
    """What can be found out, and for each the stems by which a question is about it.

    Those are the words of the item, of what the user said, and of the logged question that this answered, without what
    the user had told before.

    Args:
        items: `field: value`, extracted from the future.
        context: The dialogue so far.
        future: What followed, as far as it is known.
        excluded: What never counts as information, in words.
    """
    found = places(items, exchanges(future), excluded=excluded)
    answered = Counter(exchange for exchange in found if exchange)
    said_before = (telling_words(message["content"]) for message in context if message["role"] == "user")
    told = frozenset[str]().union(*said_before)
    facts, words = [], []
    for item, exchange in zip(items, found, strict=True):
        own = said_alone(item, exchange, shared=exchange is not None and answered[exchange] > 1)
        facts.append(Fact(item=item, said=own or value_of(item)))
        logged = f"{exchange.question} {own}" if exchange and own else ""
        words.append(telling_words(item) | (telling_words(logged) - told))
    return facts, words


def notes(patient: Patient) -> list[str]:
    """Everything that can be told, by position: the facts' items, then what the user said in the opening."""
    return [*(fact.item for fact in patient.facts), *(said for said, _ in patient.opening_words)]


def answer(patient: Patient, question: str, known: Set[int]) -> Turn:
    """One turn, by rules.

    Args:
        patient: Who is asked.
        question: Whatever the policy said.
        known: Facts that came to light before; of two that fit as well, the one that did not is told.
    """
    return tell(patient, question, _notes_about(patient, question, known))


def tell(patient: Patient, question: str, about: Sequence[int]) -> Turn:
    """One turn: the facts that a question is about, else the opening, else that it is not known.

    Args:
        patient: Who is asked.
        question: Whatever the policy said; brings no more facts to light than it asks questions.
        about: Positions in `notes`, the closest first.
    """
    limit = max(1, count_questions(question))
    facts = sorted([note for note in dict.fromkeys(about) if note < len(patient.facts)][:limit])
    openings = [patient.opening_words[note - len(patient.facts)][0] for note in about if note >= len(patient.facts)]
    if facts:
        said = patient.domain.listed(list(dict.fromkeys(patient.facts[fact].said for fact in facts)))
    else:
        said = openings[0] if openings else patient.domain.unknown_answer
    return Turn(question=question, answer=said, facts=facts, opening=bool(openings) and not facts)


def _notes_about(patient: Patient, question: str, known: Set[int]) -> list[int]:
    """What a question is about, the closest first; the opening has to hold half of the question."""
    asked = words_of(question, COMMON_WORDS)
    openings = enumerate(patient.opening_words, start=len(patient.facts))
    return facts_about(patient.words, asked, known) + [
        note for note, (_, words) in openings if 2 * len(asked & words) >= len(asked) > 0
    ]


def facts_about(facts: Sequence[frozenset[str]], asked: frozenset[str], known: Set[int] = frozenset()) -> list[int]:
    """Positions of the facts that a question is about, the closest first.

    A word of a question counts for a fact by how few facts have it; at least half of a word has to count.

    Args:
        facts: For each the stems of its telling words.
        asked: Those of the question.
        known: Facts that come after others which fit as well.
    """
    users = Counter(word for words in facts for word in words)
    scores = [round(fsum(1 / users[word] for word in asked & words), 9) for words in facts]
    about = [fact for fact, score in enumerate(scores) if score >= _ENOUGH]
    return sorted(about, key=lambda fact: (-scores[fact], fact in known, fact))


def logged_messages(future: Sequence[Message], domain: Domain) -> tuple[list[str], str | None]:
    """What the logged expert said, for putting it to the same user, and by what the interview was stopped, if it was.

    Messages of the expert that follow each other are one turn. The end marker among them stops the interview as exactly
    the stop token does; a last message that asks nothing stops it as well.

    Args:
        future: The dialogue after the opening.
        domain: Its end marker and its stop token.
    """
    said: list[str] = []
    spoken = runs(future)
    for place, (role, texts) in enumerate(spoken):
        if role == "user":
            continue
        message = "\n".join(texts)
        if domain.end_marker in (text.strip() for text in texts):
            return said, domain.stop_token
        if place == len(spoken) - 1 and not asks(message):
            return said, message
        said.append(message)
    return said, None
