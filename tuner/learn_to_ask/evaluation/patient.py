"""The user of a logged session who can be asked: answers any question with what the log holds, by rules.

It needs no model and no vocabulary: a question is about a fact when they share telling words. At most one fact comes to
light for each question of a message, so that "tell me everything" earns no more than a good question does.
"""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import fsum

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Course, Fact, Message, Sample, Turn
from tuner.learn_to_ask.core.segmentation import turn_indices
from tuner.learn_to_ask.core.words import COMMON_WORDS, words_of
from tuner.learn_to_ask.engines.question_rules import asks, count_questions
from tuner.learn_to_ask.evaluation.logged_answers import exchanges, places, runs, said_alone, value_of

RULES = "rules"  # what answers, as the interview file says it
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
    items = items_of(sample)
    found = places(items, exchanges(sample.remaining_chat), excluded=domain.information.excluded)
    answered = Counter(exchange for exchange in found if exchange)
    opening = [message["content"] for message in sample.messages if message["role"] == "user"]
    told = words_of(" ".join(opening), COMMON_WORDS)
    facts, words = [], []
    for item, exchange in zip(items, found, strict=True):
        own = said_alone(item, exchange, shared=exchange is not None and answered[exchange] > 1)
        facts.append(Fact(item=item, said=own or value_of(item)))
        logged = f"{exchange.question} {own}" if exchange and own else ""
        words.append(words_of(item, COMMON_WORDS) | (words_of(logged, COMMON_WORDS) - told))
    return Patient(
        opening=tuple(sample.messages),
        facts=tuple(facts),
        words=tuple(words),
        opening_words=tuple((said, words_of(said, COMMON_WORDS)) for said in opening),
        domain=domain,
    )


def answer(patient: Patient, question: str, known: Set[int]) -> Turn:
    """One turn: the facts that a question is about, else the opening, else that it is not known.

    A word of a question counts for a fact by how few facts have it; at least half of a word has to count.

    Args:
        patient: Who is asked.
        question: Whatever the policy said.
        known: Facts that came to light before; of two that fit as well, the one that did not is told.
    """
    asked = words_of(question, COMMON_WORDS)
    users = Counter(word for words in patient.words for word in words)
    scores = [round(fsum(1 / users[word] for word in asked & words), 9) for words in patient.words]
    about = [index for index, score in enumerate(scores) if score >= _ENOUGH]
    about.sort(key=lambda index: (-scores[index], index in known, index))
    facts = sorted(about[: max(1, count_questions(question))])
    if facts:
        said = patient.domain.listed(list(dict.fromkeys(patient.facts[index].said for index in facts)))
        return Turn(question=question, answer=said, facts=facts)
    for said, words in patient.opening_words:
        if 2 * len(asked & words) >= len(asked) > 0:
            return Turn(question=question, answer=said, facts=[], opening=True)
    return Turn(question=question, answer=patient.domain.unknown_answer, facts=[])


def logged_course(patient: Patient, future: Sequence[Message]) -> Course:
    """The logged expert's questions, put to the same user: what to compare a policy with.

    Messages of the expert that follow each other are one turn. The end marker among them stops the interview as exactly
    the stop token does; a last message that asks nothing stops it as well.

    Args:
        patient: The user of the session.
        future: The dialogue after the opening.
    """
    turns: list[Turn] = []
    end: str | None = None
    known: set[int] = set()
    spoken = runs(future)
    for place, (role, said) in enumerate(spoken):
        if role == "user":
            continue
        message = "\n".join(said)
        marked = patient.domain.end_marker in (text.strip() for text in said)
        if marked or (place == len(spoken) - 1 and not asks(message)):
            end = patient.domain.stop_token if marked else message
            break
        turns.append(answer(patient, message, known))
        known.update(turns[-1].facts)
    return Course(turns=turns, end=end)
