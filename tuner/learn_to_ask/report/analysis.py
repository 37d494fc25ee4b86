"""Computes what the report says: groups, comparisons, notes."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from tuner.learn_to_ask.evaluation.agreement import agreement
from tuner.learn_to_ask.evaluation.bootstrap import (
    Estimate,
    SessionTotals,
    estimate_differences,
    estimate_means,
    session_totals,
)
from tuner.learn_to_ask.evaluation.metrics import METRICS
from tuner.learn_to_ask.report.common_notes import FEW_SESSIONS, different_sampling, few_sessions
from tuner.learn_to_ask.report.evaluation import EvaluatedSample, Evaluation, baseline
from tuner.learn_to_ask.report.results import (
    Comparison,
    Confusion,
    Difference,
    EvaluationSummary,
    Group,
    Report,
    Verdict,
)
from tuner.learn_to_ask.report.rollout_analysis import best_of, coverage, shown_fields, stop_timing

# Turn depths that are shown together, first and last; early turns are the many.
DEPTH_BINS: tuple[tuple[int, float], ...] = (
    *((depth, depth) for depth in range(1, 7)),
    (7, 9),
    (10, float("inf")),
)
TOP_DIAGNOSES = 12
REST = "all others"


def analyse(
    evaluations: Sequence[Evaluation], *, watch: Callable[[Sequence[Evaluation]], Iterable[Evaluation]] = iter
) -> Report:
    """Computes the report.

    Args:
        evaluations: At least one; several must be comparable, see `reading.check_comparable`.
        watch: Passes the evaluations on; a caller may count them as they go by.
    """
    first = baseline(evaluations)
    others = [evaluation for evaluation in evaluations if evaluation is not first and not evaluation.reference]
    fields = shown_fields(evaluations)
    top = _top_diagnoses(evaluations)

    def by_depth(sample: EvaluatedSample) -> str:
        return depth_label(sample.depth)

    def by_diagnosis(sample: EvaluatedSample) -> str:
        return sample.diagnosis if sample.diagnosis in top else REST

    every = [sample for evaluation in evaluations for sample in evaluation.samples]
    depths = _in_order(map(by_depth, every), [depth_label(low) for low, _ in DEPTH_BINS])
    diagnoses = _in_order(map(by_diagnosis, every), [*top, REST])
    summaries = [
        _summary(
            evaluation,
            by_depth=_groups(evaluation, by_depth, depths),
            by_diagnosis=_groups(evaluation, by_diagnosis, diagnoses),
            fields=fields,
        )
        for evaluation in watch(evaluations)
    ]
    comparisons = [_comparison(first, other) for other in others]
    return Report(evaluations=summaries, comparisons=comparisons, notes=_notes(summaries, comparisons))


def depth_label(depth: int) -> str:
    """The bin of a turn depth, such as `3` or `7-9`."""
    low, high = next((low, high) for low, high in DEPTH_BINS if low <= depth <= high)
    if low == high:
        return str(low)
    return f"{low}+" if high == float("inf") else f"{low}-{high:.0f}"


def _summary(
    evaluation: Evaluation, *, by_depth: list[Group], by_diagnosis: list[Group], fields: Sequence[str]
) -> EvaluationSummary:
    """One evaluation's figures."""
    samples = evaluation.samples
    sessions = _session_numbers(evaluation, range(len(samples)))
    should_stop = np.array([sample.should_stop for sample in samples])[evaluation.sample]
    return EvaluationSummary(
        name=evaluation.name,
        file=evaluation.path,
        policies=evaluation.policies,
        graders=evaluation.graders,
        samplings=evaluation.samplings,
        domain=evaluation.domain.name,
        user=evaluation.domain.user,
        samples=len(samples),
        sessions=len(sessions),
        rollouts=sum(sample.rollouts for sample in samples),
        failed=sum(sample.failed for sample in samples),
        samples_without_scores=sum(sample.failed == sample.rollouts for sample in samples),
        metrics=_metrics(evaluation, range(len(samples))),
        confusion=Confusion(
            *(
                int(((should_stop == truth) & (evaluation.stopped == stopped)).sum())
                for truth in (False, True)
                for stopped in (False, True)
            )
        ),
        by_depth=by_depth,
        by_diagnosis=by_diagnosis,
        reliability={score: agreement(ratings) for score, ratings in evaluation.ratings.items()},
        reference=evaluation.reference,
        stop_timing=stop_timing(evaluation, sessions),
        best_of=best_of(evaluation, sessions),
        coverage=coverage(evaluation, sessions, fields),
    )


def _in_order(labels: Iterable[str], order: Sequence[str]) -> list[str]:
    """The labels that occur, each once, in a given order."""
    occurring = set(labels)
    return [label for label in dict.fromkeys(order) if label in occurring]


def _groups(evaluation: Evaluation, label_of: Callable[[EvaluatedSample], str], labels: Sequence[str]) -> list[Group]:
    """One group for each label, empty ones included, so that evaluations stand side by side."""
    members: dict[str, list[int]] = {label: [] for label in labels}
    for position, sample in enumerate(evaluation.samples):
        members[label_of(sample)].append(position)
    return [
        Group(label=label, samples=len(positions), metrics=_metrics(evaluation, positions))
        for label, positions in members.items()
    ]


def _metrics(evaluation: Evaluation, samples: Sequence[int]) -> dict[str, Estimate]:
    """All metrics over the samples at some positions."""
    totals = _totals(evaluation, samples, _session_numbers(evaluation, samples))
    return dict(zip(METRICS, estimate_means(totals), strict=True))


def _comparison(first: Evaluation, other: Evaluation) -> Comparison:
    """Two evaluations on what they have in common."""
    cids = {sample.cid for sample in first.samples} & {sample.cid for sample in other.samples}
    common, also_common = (
        [position for position, sample in enumerate(evaluation.samples) if sample.cid in cids]
        for evaluation in (first, other)
    )
    sessions = _session_numbers(first, common)
    before, after = _totals(first, common, sessions), _totals(other, also_common, sessions)
    return Comparison(
        baseline=first.name,
        name=other.name,
        common=len(cids),
        only_in_baseline=len(first.samples) - len(cids),
        only_in_other=len(other.samples) - len(cids),
        sessions=len(sessions),
        different_graders=len({*first.graders, *other.graders}) > 1,
        different_sampling=len({*first.samplings, *other.samplings}) > 1,
        metrics={
            key: Difference(before=_none(left), after=_none(right), difference=difference, verdict=_verdict(difference))
            for key, left, right, difference in zip(
                METRICS,
                before.means().tolist(),
                after.means().tolist(),
                estimate_differences(before, after),
                strict=True,
            )
        },
    )


def _session_numbers(evaluation: Evaluation, samples: Sequence[int]) -> dict[str, int]:
    """The sessions of some samples, numbered from 0."""
    names = dict.fromkeys(evaluation.samples[position].session_id for position in samples)
    return {name: number for number, name in enumerate(names)}


def _totals(evaluation: Evaluation, samples: Sequence[int], numbers: Mapping[str, int]) -> SessionTotals:
    """What each session adds to each metric, over some samples only."""
    session_of_sample = np.full(len(evaluation.samples), -1)
    session_of_sample[samples] = [numbers[evaluation.samples[position].session_id] for position in samples]
    sessions = session_of_sample[evaluation.sample]
    chosen = sessions >= 0
    return session_totals(sessions[chosen], evaluation.values[chosen], session_count=len(numbers))


def _verdict(difference: Estimate) -> Verdict:
    """What the interval of a difference allows to say."""
    if difference.low is None or difference.high is None:
        return "n/a"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"


def _top_diagnoses(evaluations: Sequence[Evaluation]) -> list[str]:
    """The diagnoses of most samples, a sample of several evaluations counting once; ties by name."""
    diagnosis_of = {sample.cid: sample.diagnosis for evaluation in evaluations for sample in evaluation.samples}
    counts = Counter(diagnosis_of.values())
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return ranked if len(ranked) <= TOP_DIAGNOSES + 1 else ranked[:TOP_DIAGNOSES]  # no "other" of a single one


def _notes(summaries: Sequence[EvaluationSummary], comparisons: Sequence[Comparison]) -> list[str]:
    """What a reader must know before believing the figures."""
    return [
        *(note for summary in summaries for note in _summary_notes(summary)),
        *(note for comparison in comparisons for note in _comparison_notes(comparison)),
    ]


def _summary_notes(summary: EvaluationSummary) -> Iterator[str]:
    """What to know about one evaluation."""
    if summary.reference:
        yield (
            f"{summary.name}: no policy, but what the log says next after {summary.samples:,} "
            f"sample{'s' * (summary.samples != 1)}, graded as rollouts are. Its decisions are the log's own and no "
            "achievement; content, format and reward show what the grader gives a logged expert. It is compared with "
            "none."
        )
    if len(summary.graders) > 1:
        yield f"{summary.name}: its rollouts were not all graded by the same grader."
    if len(summary.samplings) > 1:
        yield f"{summary.name}: its rollouts were not all sampled alike."
    if summary.failed:
        yield (
            f"{summary.name}: the grading of {summary.failed:,} of {summary.rollouts:,} rollouts failed; they count "
            "in the decision metrics and are left out of content, format and reward. Only questions asked where asking "
            "was right can fail."
        )
    if summary.sessions < FEW_SESSIONS:
        yield few_sessions(summary.name, summary.sessions)


def _comparison_notes(comparison: Comparison) -> Iterator[str]:
    """What to know about one comparison."""
    pair = f"{comparison.name} against {comparison.baseline}"
    if comparison.different_graders:
        yield (
            f"{pair}: not graded by the same grader, as far as the files say. A difference may be the graders', not "
            "the policies'."
        )
    if comparison.different_sampling:
        yield different_sampling(pair)
    if comparison.only_in_baseline or comparison.only_in_other:
        yield (
            f"{pair}: compared on the {comparison.common:,} samples that both have; {comparison.only_in_baseline:,} "
            f"are only in {comparison.baseline}, {comparison.only_in_other:,} only in {comparison.name}."
        )


def _none(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if np.isnan(value) else value
