"""Deterministic stand-ins for the 32B extractor and grader, so that everything runs without one.

They read the prompts a real model would get and answer in its format, by rules over the vocabulary of the
sample logs and by word overlap. What they say has nothing to do with medical quality: they exist so that
the whole pipeline can be run, tested and understood on a laptop.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial, update_wrapper

from tuner.learn_to_ask import prompt
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.labels import items_of_truth
from tuner.learn_to_ask.core.words import words_of
from tuner.learn_to_ask.engines.base import Applied, Reply, Request, Sampling, as_asked
from tuner.learn_to_ask.engines.question_rules import asks, count_questions
from tuner.learn_to_ask.sample_data.vocabulary import Complaint, read_vocabulary, vocabulary_of

OfflineAnswer = Callable[[list[dict[str, str]]], str]


class OfflineEngine:
    """Answers every conversation with a rule."""

    def __init__(self, answer: OfflineAnswer) -> None:
        """Takes the rule: that of `extractor`, `grader` or `judge`."""
        self.description = f"offline:{answer.__name__}"
        self._answer = answer

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the rule's answer `n` times for each request, in order."""
        for request in requests:
            yield Reply(request.key, [self._answer(request.messages)] * sampling.n)

    def applied(self, sampling: Sampling) -> Applied:
        """Nothing: rules do not sample."""
        return dict.fromkeys(as_asked(sampling))

    def summary(self) -> list[tuple[str, object]]:
        """Nothing else to tell."""
        return []

    def close(self) -> None:
        """Holds nothing."""


def extractor(domain: Domain) -> OfflineAnswer:
    """The extractor's rule for a domain.

    Raises:
        UserError: When the domain has no vocabulary.
    """
    vocabulary_of(domain)
    return _rule(extract_answer, domain)


def grader(domain: Domain) -> OfflineAnswer:
    """The grader's rule for a domain.

    Raises:
        UserError: When the domain has no vocabulary.
    """
    vocabulary_of(domain)
    return _rule(grade_answer, domain)


def judge(domain: Domain) -> OfflineAnswer:
    """The rule of the judge of sessions for a domain; it needs no vocabulary."""
    return _rule(judge_answer, domain)


def _rule(answer: Callable[..., str], domain: Domain) -> OfflineAnswer:
    """A rule with its domain, under its own name."""
    return update_wrapper(partial(answer, domain=domain), answer)


def extract_answer(messages: list[dict[str, str]], domain: Domain) -> str:
    """The extractor's rule: every answer of the vocabulary that the user gives, as `field: term`.

    Args:
        messages: As `prompt.extraction_messages` makes them.
        domain: Of the messages.

    Returns:
        A JSON list of strings.
    """
    items: dict[str, None] = {}
    for line in messages[-1]["content"].splitlines():
        speaker, _, text = line.partition(": ")
        if speaker == domain.speakers.user:
            for phrase, item in _index_of(domain).answers:
                if phrase in text.lower():
                    items[item] = None
    return json.dumps(list(items), ensure_ascii=False)


def grade_answer(messages: list[dict[str, str]], domain: Domain) -> str:
    """The grader's rule: the number of questions makes the format score, shared word stems the content score.

    A question is about an attribute when it shares two words with what can be asked or answered about it, and about an
    item when it names half of the item's words. That earns 1.0 if the reference holds the item or an answer to the
    attribute, 0.5 if it holds one to another attribute of the same complaint. Items outside the vocabulary count when
    the question names a word of theirs. A message that is not built as a question is about nothing.

    Args:
        messages: As `prompt.grading_messages` makes them.
        domain: Of the messages.

    Returns:
        The three tags.
    """
    head, tail = prompt.reward_prompt(domain).split("{info_truth}")
    reference = messages[0]["content"].removeprefix(head).removesuffix(tail)
    question = messages[-1]["content"].splitlines()[-1].removeprefix(f"{domain.speakers.assistant}: ")
    questions = count_questions(question)
    format_score = {1: 1.0, 2: 0.5}.get(questions, 0.0)
    items = items_of_truth(reference) if asks(question) else []
    content_score = max((_item_score(question, item, _index_of(domain)) for item in items), default=0.0)
    return (
        f"<think>{questions} questions; the closest item of the reference scores {content_score}.</think>\n"
        f"<format_score>{format_score}</format_score>\n<content_score>{content_score}</content_score>"
    )


def judge_answer(messages: list[dict[str, str]], domain: Domain) -> str:
    """The rule of the judge of sessions: the share of the expert's questioning lines that the user reacts to.

    All of them earn 1.0, some 0.5, none 0.0. An expert who asks nothing earns 0.5: that teaches to stop.

    Args:
        messages: As `prompt.judging_messages` makes them.
        domain: Of the messages.

    Returns:
        The two tags.
    """
    user, assistant = domain.speakers.user, domain.speakers.assistant
    speakers = [line.partition(": ")[::2] for line in messages[-1]["content"].splitlines()]
    last_reaction = max((place for place, (speaker, _) in enumerate(speakers) if speaker == user), default=-1)
    asked = [place for place, (speaker, text) in enumerate(speakers) if speaker == assistant and asks(text)]
    answered = sum(place < last_reaction for place in asked)
    score = 0.5 if 0 < answered < len(asked) or not asked else float(answered > 0)
    return f"<think>{answered} of {len(asked)} questions are answered.</think>\n<teaches>{score}</teaches>"


def _item_score(question: str, item: str, index: "_Index") -> float:
    """How close a question is to one reference item: 1.0, 0.5 or 0.0."""
    asked, named = words_of(question, index.common), words_of(item.partition(":")[2], index.common)
    topic = index.topics.get(item)
    if topic is None:
        return 1.0 if asked & named else 0.0
    own = named & topic.own
    if len(asked & topic.own) >= 2 or 2 * len(asked & own) >= len(named) > 0:
        return 1.0
    return 0.5 if any(len(asked & other) >= 2 for other in topic.others) else 0.0


@dataclass(frozen=True, slots=True)
class _Topic:
    """Where an item of the vocabulary belongs.

    Attributes:
        own: The words that only this attribute of the complaint uses.
        others: Those of the complaint's other attributes.
    """

    own: frozenset[str]
    others: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class _Index:
    """A vocabulary, ready to be looked up.

    Attributes:
        common: Words that say nothing about what a question is about.
        answers: Every phrase a user may answer with, and the item it stands for.
        topics: Item -> the attribute it answers.
    """

    common: frozenset[str]
    answers: tuple[tuple[str, str], ...]
    topics: dict[str, _Topic]


def _index_of(domain: Domain) -> _Index:
    """The index of a domain's vocabulary."""
    vocabulary_of(domain)  # complains where there is none
    return _index(str(domain.vocabulary))


@lru_cache(maxsize=8)
def _index(path: str) -> _Index:
    """The index of the vocabulary in a file."""
    vocabulary = read_vocabulary(path)
    common = frozenset(vocabulary.common_words.split())
    answers: list[tuple[str, str]] = []
    topics: dict[str, _Topic] = {}
    for complaint in vocabulary.complaints:
        own = own_words(complaint, common)
        for number, attribute in enumerate(complaint.attributes):
            topic = _Topic(own[number], tuple(own[:number] + own[number + 1 :]))
            items = {phrase: f"{attribute.field}: {term}" for phrase, term in attribute.answers.items()}
            answers += items.items()
            topics |= dict.fromkeys(items.values(), topic)
    return _Index(common, tuple(answers), topics)


def own_words(complaint: Complaint, common: frozenset[str]) -> list[frozenset[str]]:
    """For each attribute of a complaint the words that no other of its attributes uses.

    Args:
        complaint: Of a vocabulary.
        common: Words that do not count.
    """
    words = [
        words_of(" ".join((attribute.question, *attribute.about, *attribute.answers.values())), common)
        for attribute in complaint.attributes
    ]
    return [
        own - frozenset[str]().union(*(other for place, other in enumerate(words) if place != number))
        for number, own in enumerate(words)
    ]
