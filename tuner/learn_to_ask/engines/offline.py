"""Deterministic stand-ins for the 32B extractor and grader, so that everything runs without one.

They read the prompts a real model would get and answer in its format, by rules over the vocabulary of the
sample logs and by word overlap. What they say has nothing to do with medical quality: they exist so that
the whole pipeline can be run, tested and understood on a laptop.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from tuner.learn_to_ask import prompt
from tuner.learn_to_ask.engines.base import Applied, Reply, Request, Sampling, as_asked
from tuner.learn_to_ask.engines.question_rules import asks, count_questions
from tuner.learn_to_ask.sample_data.vocabulary import COMPLAINTS, Attribute, Complaint

_COMMON_WORDS = frozenset(
    "a about after all an and any anything are as at be but by can do does for from get have how if in into is "
    "it its like look lot my of on or other pain part side still symptom that the there to up was what when which "
    "with you your".split()
)
_REFERENCE_HEAD, _REFERENCE_TAIL = prompt.reward_prompt_med.split("{info_truth}")


class OfflineEngine:
    """Answers every conversation with a rule."""

    def __init__(self, answer: Callable[[list[dict[str, str]]], str]) -> None:
        """Takes the rule: `extract_answer`, `grade_answer` or `judge_answer`."""
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


def extract_answer(messages: list[dict[str, str]]) -> str:
    """The extractor's rule: every answer of the vocabulary that the patient gives, as `field: term`.

    Args:
        messages: As `prompt.extraction_messages` makes them.

    Returns:
        A JSON list of strings.
    """
    items: dict[str, None] = {}
    for line in messages[-1]["content"].splitlines():
        speaker, _, text = line.partition(": ")
        if speaker == "patient":
            for phrase, item in _answer_items():
                if phrase in text.lower():
                    items[item] = None
    return json.dumps(list(items))


def grade_answer(messages: list[dict[str, str]]) -> str:
    """The grader's rule: the number of questions makes the format score, shared word stems the content score.

    A question is about an attribute when it shares two words with what can be asked or answered about it, and about an
    item when it names half of the item's words. That earns 1.0 if the reference holds the item or an answer to the
    attribute, 0.5 if it holds one to another attribute of the same complaint. Items outside the vocabulary count when
    the question names a word of theirs. A message that is not built as a question is about nothing.

    Args:
        messages: As `prompt.grading_messages` makes them.

    Returns:
        The three tags.
    """
    reference = messages[0]["content"].removeprefix(_REFERENCE_HEAD).removesuffix(_REFERENCE_TAIL)
    question = messages[-1]["content"].splitlines()[-1].removeprefix("doctor: ")
    questions = count_questions(question)
    format_score = {1: 1.0, 2: 0.5}.get(questions, 0.0)
    items = _reference_items(reference) if asks(question) else []
    content_score = max((_item_score(question, item) for item in items), default=0.0)
    return (
        f"<think>{questions} questions; the closest item of the reference scores {content_score}.</think>\n"
        f"<format_score>{format_score}</format_score>\n<content_score>{content_score}</content_score>"
    )


def judge_answer(messages: list[dict[str, str]]) -> str:
    """The rule of the judge of sessions: the share of the doctor's questioning lines that the patient reacts to.

    All of them earn 1.0, some 0.5, none 0.0. A doctor who asks nothing earns 0.5: that teaches to stop.

    Args:
        messages: As `prompt.judging_messages` makes them.

    Returns:
        The two tags.
    """
    speakers = [line.partition(": ")[::2] for line in messages[-1]["content"].splitlines()]
    last_reaction = max((place for place, (speaker, _) in enumerate(speakers) if speaker == "patient"), default=-1)
    asked = [place for place, (speaker, text) in enumerate(speakers) if speaker == "doctor" and asks(text)]
    answered = sum(place < last_reaction for place in asked)
    score = 0.5 if 0 < answered < len(asked) or not asked else float(answered > 0)
    return f"<think>{answered} of {len(asked)} questions are answered.</think>\n<teaches>{score}</teaches>"


@dataclass(frozen=True, slots=True)
class _Topic:
    """Where an item of the vocabulary belongs."""

    complaint: Complaint
    attribute: Attribute


def _reference_items(reference: str) -> list[str]:
    """Splits `info_truth` back into its items; values may hold commas of their own."""
    return [item for item in re.split(r", (?=[A-Za-z ]+: )", reference.strip()) if item]


def _item_score(question: str, item: str) -> float:
    """How close a question is to one reference item: 1.0, 0.5 or 0.0."""
    asked, named = _words(question), _words(item.partition(":")[2])
    topic = _topics().get(item)
    if topic is None:
        return 1.0 if asked & named else 0.0
    own = named & _attribute_words(topic.complaint)[topic.attribute.question]
    if _is_about(asked, topic.complaint, topic.attribute) or 2 * len(asked & own) >= len(named) > 0:
        return 1.0
    return 0.5 if any(_is_about(asked, topic.complaint, attribute) for attribute in topic.complaint.attributes) else 0.0


def _is_about(asked: frozenset[str], complaint: Complaint, attribute: Attribute) -> bool:
    """Whether a question shares two words with what can be asked or answered about an attribute."""
    return len(asked & _attribute_words(complaint)[attribute.question]) >= 2


def _words(text: str) -> frozenset[str]:
    """The stems of a text's telling words: at least three letters or a number, none of the common ones."""
    words = frozenset(re.findall(r"[a-z]{3,}|\d[\d.-]*", text.lower())) - _COMMON_WORDS
    return frozenset(map(_stem, words))


@cache
def _stem(word: str) -> str:
    """A word without its endings: `cramps` and `cramping` are one."""
    import snowballstemmer

    stem: str = snowballstemmer.stemmer("english").stemWord(word)
    return stem


@cache
def _answer_items() -> tuple[tuple[str, str], ...]:
    """Every phrase a patient may answer with, and the item it stands for."""
    return tuple(
        (phrase, f"{attribute.field}: {term}")
        for complaint in COMPLAINTS
        for attribute in complaint.attributes
        for phrase, term in attribute.answers.items()
    )


@cache
def _topics() -> dict[str, _Topic]:
    """Item -> the attribute it answers."""
    return {
        f"{attribute.field}: {term}": _Topic(complaint, attribute)
        for complaint in COMPLAINTS
        for attribute in complaint.attributes
        for term in attribute.answers.values()
    }


@cache
def _attribute_words(complaint: Complaint) -> dict[str, frozenset[str]]:
    """Question -> the words that only this attribute of the complaint uses."""
    words = {
        attribute.question: _words(" ".join((attribute.question, *attribute.about, *attribute.answers.values())))
        for attribute in complaint.attributes
    }
    return {
        question: own - frozenset().union(*(other for key, other in words.items() if key != question))
        for question, own in words.items()
    }
