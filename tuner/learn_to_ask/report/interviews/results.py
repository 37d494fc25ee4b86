"""What the report of whole interviews holds; it can be written as JSON as it stands."""

from dataclasses import dataclass, field
from typing import Literal

from tuner.learn_to_ask.evaluation.bootstrap import RESAMPLES, SEED, Estimate
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS

Verdict = Literal["better", "worse", "more", "less", "not distinguishable", "n/a"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterviewSummary:
    """The interviews of one policy.

    Attributes:
        name: What the report calls it.
        file: Where they were read from.
        policies: Engine and model.
        users: Who answers: `rules`, or `llm:` with engine and model.
        samplings: How the policy was sampled, as far as its engine applied it.
        sessions: How many, with an interview each.
        metrics: Key of `METRICS` -> mean over the interviews that it is about.
        curve: Coverage after turn 0, 1, … up to the turn limit; it never falls.
    """

    name: str
    file: str
    policies: list[str]
    users: list[str]
    samplings: list[str]
    sessions: int
    metrics: dict[str, Estimate]
    curve: list[Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedSummary:
    """The logged expert's questions, put to the same users: the line to compare with.

    Attributes:
        sessions: All that are in any file; one that is in several is taken from the first.
        answered_differently: In how many of them the same questions brought other answers in another file.
        metrics: As of a policy.
        curve: As of a policy; a log is not broken off, so that it may cover more at its stop than at the turn limit.
    """

    sessions: int
    answered_differently: int
    metrics: dict[str, Estimate]
    curve: list[Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterviewDifference:
    """One metric of two policies, over their common sessions.

    Attributes:
        before: Mean of the first policy.
        after: Mean of the other one.
        difference: After minus before, with the interval of the paired bootstrap.
        verdict: Whether the interval excludes 0, and on which side; `more` and `less` for a metric of which neither
            is better by itself.
    """

    before: float | None
    after: float | None
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class InterviewComparison:
    """A policy against the first one.

    Attributes:
        baseline: Name of the first one.
        name: Name of the other one.
        common: How many sessions both have; only these are compared.
        only_in_baseline: How many sessions only the first one has.
        only_in_other: How many sessions only the other one has.
        different_users: Whether not all of their interviews were answered by the same user.
        different_sampling: Whether not all of them were sampled alike.
        metrics: Key of `METRICS` -> the comparison.
    """

    baseline: str
    name: str
    common: int
    only_in_baseline: int
    only_in_other: int
    different_users: bool
    different_sampling: bool
    metrics: dict[str, InterviewDifference]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterviewReport:
    """Everything.

    Attributes:
        policies: In the order of the command line.
        logged: The line to compare with.
        comparisons: One for each policy but the first.
        notes: What a reader must know before believing the figures.
        domain: Of the interviews.
        user: What the one who is asked is called there.
        assistant: What the one who asks is called there.
        max_turns: After how many turns an interview is broken off.
        titles: Key of `METRICS` -> its name in tables.
        meanings: Key of `METRICS` -> what it is.
        better: Key of `METRICS` -> which of two values is the better one, if any is.
        confidence: Level of every interval.
        resamples: Draws behind every interval.
        seed: Of the draws.
    """

    policies: list[InterviewSummary]
    logged: LoggedSummary
    comparisons: list[InterviewComparison]
    notes: list[str]
    domain: str
    user: str
    assistant: str
    max_turns: int
    titles: dict[str, str] = field(default_factory=lambda: {key: metric.title for key, metric in METRICS.items()})
    meanings: dict[str, str] = field(default_factory=lambda: {key: metric.meaning for key, metric in METRICS.items()})
    better: dict[str, Literal["more", "less"] | None] = field(
        default_factory=lambda: {key: metric.better for key, metric in METRICS.items()}
    )
    confidence: float = 0.95
    resamples: int = RESAMPLES
    seed: int = SEED
