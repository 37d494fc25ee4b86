"""Computes when rollouts stop, which fields they ask for, and what the best of several is worth."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tuner.learn_to_ask.evaluation.best_of import expected_best
from tuner.learn_to_ask.evaluation.bootstrap import IntArray, SessionTotals, estimate_means, session_totals
from tuner.learn_to_ask.evaluation.metrics import METRICS
from tuner.learn_to_ask.evaluation.stop_timing import STOP_METRICS, early_counts, timing_values, turns_left
from tuner.learn_to_ask.report.evaluation import Evaluation
from tuner.learn_to_ask.report.results import BestOf, Coverage, FieldGroup, StopTiming

TOP_FIELDS = 12
REST = "all others"
_REWARD = list(METRICS).index("total_reward")


def stop_timing(evaluation: Evaluation, sessions: Mapping[str, int]) -> StopTiming:
    """When rollouts stop.

    Args:
        evaluation: Whose rollouts.
        sessions: Of its samples, numbered from 0.
    """
    samples = evaluation.samples
    left = turns_left(
        [sample.session_id for sample in samples],
        [sample.depth for sample in samples],
        [sample.should_stop for sample in samples],
    )
    of_rollout = np.array([np.nan if turns is None else turns for turns in left])[evaluation.sample]
    totals = session_totals(
        _session_of_sample(evaluation, sessions)[evaluation.sample],
        timing_values(of_rollout, evaluation.stopped),
        session_count=len(sessions),
    )
    return StopTiming(
        metrics=dict(zip(STOP_METRICS, estimate_means(totals), strict=True)),
        early=early_counts(of_rollout, evaluation.stopped),
        end_unknown=int((evaluation.stopped & np.isnan(of_rollout)).sum()),
        late=int((~evaluation.stopped & (of_rollout == 0)).sum()),
    )


def best_of(evaluation: Evaluation, sessions: Mapping[str, int]) -> BestOf:
    """What the best of several rollouts of a sample is worth, on the same samples for every number of them.

    Args:
        evaluation: Whose rollouts.
        sessions: Of its samples, numbered from 0.
    """
    most = max(sample.rollouts for sample in evaluation.samples)
    if not most:
        return BestOf(samples=0, rewards=[])
    rewards = evaluation.values[:, _REWARD]
    scored = ~np.isnan(rewards)
    whole = np.bincount(evaluation.sample[scored], minlength=len(evaluation.samples)) == most
    chosen = rewards[scored & whole[evaluation.sample]].reshape(-1, most)
    of_session = _session_of_sample(evaluation, sessions)[whole]
    totals = session_totals(of_session, expected_best(chosen), session_count=len(sessions))
    return BestOf(samples=len(chosen), rewards=estimate_means(totals))


def shown_fields(evaluations: Sequence[Evaluation]) -> list[str]:
    """The fields that most items have, over all evaluations, then `REST` if there are more; ties by name."""
    counts: Counter[str] = Counter()
    for evaluation in evaluations:
        names = list(evaluation.fields.names)
        items = np.bincount(evaluation.fields.number, weights=evaluation.fields.items, minlength=len(names))
        counts.update(dict(zip(names, items.astype(int).tolist(), strict=True)))
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return ranked if len(ranked) <= TOP_FIELDS + 1 else [*ranked[:TOP_FIELDS], REST]


def coverage(evaluation: Evaluation, sessions: Mapping[str, int], fields: Sequence[str]) -> Coverage:
    """Which fields questions ask for.

    Args:
        evaluation: Whose rollouts.
        sessions: Of its samples, numbered from 0.
        fields: Of `shown_fields`.
    """
    columns = evaluation.fields
    place = {name: number for number, name in enumerate(fields)}
    shown = np.array([place.get(name, len(fields) - 1) for name in columns.names], dtype=np.int64)
    sample, group = np.array(columns.sample, dtype=np.int64), shown[np.array(columns.number, dtype=np.int64)]
    rollouts = np.array([each.rollouts for each in evaluation.samples])[sample]
    cell = _session_of_sample(evaluation, sessions)[sample] * len(fields) + group
    shape = (len(sessions), len(fields))
    sums, counts = (
        np.bincount(cell, weights=weights, minlength=shape[0] * shape[1]).astype(np.float64).reshape(shape)
        for weights in (np.array(columns.asked), rollouts)
    )
    estimates = estimate_means(SessionTotals(sums=sums, counts=counts))
    items = np.bincount(group, weights=columns.items, minlength=len(fields)).astype(int).tolist()
    return Coverage(
        fields=[
            FieldGroup(label=name, samples=len(np.unique(sample[group == number])), items=items[number], asked=estimate)
            for number, (name, estimate) in enumerate(zip(fields, estimates, strict=True))
        ],
        full_content=columns.full,
        full_content_unmatched=columns.unmatched,
    )


def _session_of_sample(evaluation: Evaluation, sessions: Mapping[str, int]) -> IntArray:
    """For each sample the number of its session."""
    return np.array([sessions[sample.session_id] for sample in evaluation.samples], dtype=np.int64)
