"""What the report says, in numbers: every class here is an object of `report.json`, every attribute a key of it."""

from dataclasses import dataclass, field
from typing import Literal

from tuner.learn_to_ask.evaluation.agreement import Agreement
from tuner.learn_to_ask.evaluation.bootstrap import RESAMPLES, SEED, Estimate
from tuner.learn_to_ask.evaluation.metrics import METRICS
from tuner.learn_to_ask.report.published import PUBLISHED, PUBLISHED_NOTE

Verdict = Literal["better", "worse", "not distinguishable", "n/a"]


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the samples of an evaluation.

    Attributes:
        label: What they have in common.
        samples: How many there are.
        metrics: Key of `METRICS` -> mean over their rollouts.
    """

    label: str
    samples: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Confusion:
    """What rollouts did (second word) where the truth was the first word; counts."""

    continue_continue: int
    continue_stop: int
    stop_continue: int
    stop_stop: int


@dataclass(frozen=True, slots=True)
class StopTiming:
    """When rollouts stop, in turns of the user from where the log stops.

    Attributes:
        metrics: Key of `STOP_METRICS` -> mean over the rollouts that it is about.
        early: Turns too early, 0 for in time -> how many stops.
        end_unknown: Stops where asking is right, in sessions without a later sample where the log stops; in no mean.
        late: Rollouts that asked where the log stops.
    """

    metrics: dict[str, Estimate]
    early: dict[int, int]
    end_unknown: int
    late: int


@dataclass(frozen=True, slots=True)
class BestOf:
    """What the best of several rollouts of a sample is worth.

    Attributes:
        samples: Those with as many rewards as any sample has rollouts; every other is left out, so that the figures
            are about the same samples.
        rewards: Expected best reward of 1, 2, … rollouts, a mean over samples: its `rollouts` counts samples.
    """

    samples: int
    rewards: list[Estimate]


@dataclass(frozen=True, slots=True)
class FieldGroup:
    """One field of the reference information.

    Attributes:
        label: The field, or `all others`.
        samples: Samples to continue from whose reference information has it.
        items: Items of them that have it.
        asked: Share of a sample's items of this field that a rollout asks for, by shared words; mean over the rollouts
            of these samples, a rollout that stops asks for none.
    """

    label: str
    samples: int
    items: int
    asked: Estimate


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which fields questions ask for, as far as shared words tell.

    Attributes:
        fields: Most frequent first, the same in every evaluation.
        full_content: Questions to which the grader gave full content score.
        full_content_unmatched: Those of them that by shared words ask for no item.
    """

    fields: list[FieldGroup]
    full_content: int
    full_content_unmatched: int


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """One evaluation.

    Attributes:
        name: What the report calls it.
        file: Where it was read from.
        policies: Engine and model of the rollouts; `""` when the file does not say.
        graders: Engine and model of the grades; `""` when the file does not say.
        samplings: How the policy was sampled, as far as its engine applied it; `""` when the file does not say.
        domain: Of the interviews.
        user: What the one who is asked is called there.
        samples: How many.
        sessions: How many they come from.
        rollouts: All of them.
        failed: Rollouts whose grading failed; they count in the decision metrics alone.
        samples_without_scores: Samples that are in no average of content, format or reward, because all their
            gradings failed or they have no rollout.
        metrics: Key of `METRICS` -> mean over the rollouts that it is about.
        confusion: Of continue and stop.
        by_depth: Groups by how often the patient has spoken, one for each of `DEPTH_BINS` that holds a
            sample of any evaluation.
        by_diagnosis: Groups by diagnosis, most frequent first, the rest as one group at the end.
        reliability: Score -> how far the grader agrees with itself on rollouts graded more than once.
        reference: Whether the rollouts are the logged expert's own messages (`--grade_reference` of script 3).
        stop_timing: When its rollouts stop.
        best_of: What the best of several rollouts is worth.
        coverage: Which fields its questions ask for.
    """

    name: str
    file: str
    policies: list[str]
    graders: list[str]
    samplings: list[str]
    domain: str
    user: str
    samples: int
    sessions: int
    rollouts: int
    failed: int
    samples_without_scores: int
    metrics: dict[str, Estimate]
    confusion: Confusion
    by_depth: list[Group]
    by_diagnosis: list[Group]
    reliability: dict[str, Agreement]
    reference: bool
    stop_timing: StopTiming
    best_of: BestOf
    coverage: Coverage


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two evaluations, over their common samples.

    Attributes:
        before: Mean in the baseline.
        after: Mean in the other evaluation.
        difference: After minus before, with the interval of the paired bootstrap.
        verdict: Whether the interval excludes 0, and on which side; more is better for every metric.
    """

    before: float | None
    after: float | None
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """An evaluation against the first one.

    Attributes:
        baseline: Name of the first evaluation.
        name: Name of the other one.
        common: How many samples both have; only these are compared.
        only_in_baseline: How many samples only the first one has.
        only_in_other: How many samples only the other one has.
        sessions: How many sessions the common samples come from.
        different_graders: Whether the two cannot be said to have been graded by the same grader.
        different_sampling: Whether their policies cannot be said to have been sampled alike.
        metrics: Key of `METRICS` -> the comparison.
    """

    baseline: str
    name: str
    common: int
    only_in_baseline: int
    only_in_other: int
    sessions: int
    different_graders: bool
    different_sampling: bool
    metrics: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything.

    Attributes:
        evaluations: In the order of the command line.
        comparisons: One for each policy but the first; a reference is compared with none.
        notes: What a reader must know before believing the figures.
        titles: Key of `METRICS` -> its name in tables.
        published: Column -> key of `METRICS` -> published value.
        published_note: What these are.
        confidence: Level of every interval.
        resamples: Draws behind every interval.
        seed: Of the draws.
    """

    evaluations: list[EvaluationSummary]
    comparisons: list[Comparison]
    notes: list[str]
    titles: dict[str, str] = field(default_factory=lambda: {key: metric.title for key, metric in METRICS.items()})
    published: dict[str, dict[str, float]] = field(
        default_factory=lambda: {column: dict(values) for column, values in PUBLISHED.items()}
    )
    published_note: str = PUBLISHED_NOTE
    confidence: float = 0.95
    resamples: int = RESAMPLES
    seed: int = SEED
