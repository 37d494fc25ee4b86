"""What a whole interview is worth: each metric in one sentence with its range, computed from the turns alone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.learn_to_ask.core.records import Course, Interview
from tuner.learn_to_ask.core.words import COMMON_WORDS, words_of
from tuner.learn_to_ask.engines.question_rules import count_questions

NEAR_SAME = 0.8  # share of common words, of the words of both, from which on two questions are one


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """An interview as the metrics see it.

    Attributes:
        facts: How many could be found out, at least 1.
        new: For each turn how many facts came to light that were not known.
        repeated: For each turn whether it asks again, see `METRICS`.
        unanswered: For each turn whether the log holds no answer.
        breaches: For each message, the one that stops included, whether it is neither one question nor exactly the
            stop token.
        stopped: Whether it was stopped, not broken off.
        max_turns: After how many turns it would be broken off.
    """

    facts: int
    new: tuple[int, ...]
    repeated: tuple[bool, ...]
    unanswered: tuple[bool, ...]
    breaches: tuple[bool, ...]
    stopped: bool
    max_turns: int

    @property
    def curve(self) -> list[float]:
        """Coverage after each turn from the first to `max_turns`; what is known stays known after the end."""
        return [sum(self.new[:turn]) / self.facts for turn in range(1, self.max_turns + 1)]

    @property
    def all_known(self) -> bool:
        """Whether every fact came to light."""
        return sum(self.new) == self.facts

    @property
    def turns_after_last_fact(self) -> int:
        """How many turns followed the one that brought the last new fact; all of them when none did."""
        last = max((turn for turn, new in enumerate(self.new, start=1) if new), default=0)
        return len(self.new) - last

    @property
    def outcome(self) -> str:
        """How it ended; see `METRICS`."""
        if self.all_known and self.turns_after_last_fact:
            return "too late"
        if not self.stopped:
            return "broken off"
        return "in time" if self.all_known else "too early"


@dataclass(frozen=True, slots=True)
class InterviewMetric:
    """A mean over interviews.

    Attributes:
        title: For tables.
        meaning: What it is, in one sentence with its range.
        value: What an interview adds to the mean; `None` for one the metric is not about.
        better: Which of two values is the better one; `None` where neither is by itself.
    """

    title: str
    meaning: str
    value: Callable[[Observed], float | None]
    better: Literal["more", "less"] | None


def _share(of: Sequence[bool]) -> float | None:
    """How many of them hold, as a share; `None` of nothing."""
    return sum(of) / len(of) if of else None


METRICS = {
    "coverage": InterviewMetric(
        "coverage at stop",
        "the share of the facts that came to light, 0 to 1",
        lambda one: sum(one.new) / one.facts,
        better="more",
    ),
    "coverage_area": InterviewMetric(
        "area under coverage",
        "the mean of the coverage after turn 1, 2, … up to the turn limit, 0 to 1: the earlier the facts, the larger",
        lambda one: sum(one.curve) / one.max_turns,
        better="more",
    ),
    "facts_a_question": InterviewMetric(
        "facts a question",
        "new facts by question asked, from 0; not for interviews without a question",
        lambda one: sum(one.new) / len(one.new) if one.new else None,
        better="more",
    ),
    "turns": InterviewMetric(
        "turns",
        "messages that were answered, 0 up to the turn limit",
        lambda one: float(len(one.new)),
        better=None,
    ),
    "repeated": InterviewMetric(
        "repeated questions",
        "the share of questions near-same to an earlier one or answered with what was known already, 0 to 1",
        lambda one: _share(one.repeated),
        better="less",
    ),
    "unanswerable": InterviewMetric(
        "the log cannot answer",
        "the share of questions to which the log holds no answer, 0 to 1; they may be good ones all the same",
        lambda one: _share(one.unanswered),
        better=None,
    ),
    "in_time": InterviewMetric(
        "stopped in time",
        "the share of interviews stopped right after the last fact came to light, 0 to 1",
        lambda one: float(one.outcome == "in time"),
        better="more",
    ),
    "too_early": InterviewMetric(
        "stopped too early",
        "the share of interviews stopped with facts left, 0 to 1",
        lambda one: float(one.outcome == "too early"),
        better="less",
    ),
    "too_late": InterviewMetric(
        "gone on too long",
        "the share of interviews that went on after every fact was known, stopped later or never, 0 to 1",
        lambda one: float(one.outcome == "too late"),
        better="less",
    ),
    "broken_off": InterviewMetric(
        "never stopped",
        "the share of interviews that were not stopped and not gone on too long either, 0 to 1",
        lambda one: float(one.outcome == "broken off"),
        better="less",
    ),
    "turns_too_late": InterviewMetric(
        "turns too late",
        "turns after the last fact, from 0; over interviews in which every fact came to light",
        lambda one: float(one.turns_after_last_fact) if one.all_known else None,
        better="less",
    ),
    "format_breaches": InterviewMetric(
        "format breaches",
        "the share of messages that are neither exactly one question nor exactly the stop token, 0 to 1",
        lambda one: _share(one.breaches),
        better="less",
    ),
}


def observe(interview: Interview, course: Course) -> Observed:
    """What the metrics need of an interview.

    Args:
        interview: Its facts, its turn limit and its stop token.
        course: Its own, or that of the logged expert.
    """
    known: set[int] = set()
    new, repeated = [], []
    asked = [_asked(turn.question) for turn in course.turns]
    for place, turn in enumerate(course.turns):
        facts = set(turn.facts)
        again = any(_near_same(asked[place], earlier) for earlier in asked[:place])
        repeated.append(again or turn.opening or (bool(facts) and facts <= known))
        new.append(len(facts - known))
        known |= facts
    breaches = [count_questions(turn.question) != 1 for turn in course.turns]
    if course.end is not None:
        breaches.append(course.end != interview.domain.stop_token)
    return Observed(
        facts=len(interview.facts),
        new=tuple(new),
        repeated=tuple(repeated),
        unanswered=tuple(not turn.facts and not turn.opening for turn in course.turns),
        breaches=tuple(breaches),
        stopped=course.end is not None,
        max_turns=interview.max_turns,
    )


def measure(observed: Observed) -> dict[str, float | None]:
    """Every metric of one interview, by the keys of `METRICS`."""
    return {key: metric.value(observed) for key, metric in METRICS.items()}


def _asked(question: str) -> frozenset[str]:
    """By what questions are compared: telling words, or the bare text of one that has none."""
    return words_of(question, COMMON_WORDS) or frozenset({re.sub(r"[\W_]+", "", question.lower())})


def _near_same(asked: frozenset[str], earlier: frozenset[str]) -> bool:
    """Whether two questions are the same but for small words, case and marks."""
    return len(asked & earlier) >= NEAR_SAME * len(asked | earlier)
