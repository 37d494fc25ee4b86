"""The samples that the page lets one read: few enough for a browser, and of every sort."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from tuner.learn_to_ask.core.records import Grade, GradedTask
from tuner.learn_to_ask.core.reward import decision, reward
from tuner.learn_to_ask.evaluation.bootstrap import FloatArray
from tuner.learn_to_ask.evaluation.metrics import METRICS
from tuner.learn_to_ask.report.evaluation import Evaluation, diagnosis_label

MAX_EXAMPLES = 500
MAX_BYTES = 8_000_000  # of embedded text, so that the page stays below 10 MB
_REWARD = list(METRICS).index("total_reward")


@dataclass(frozen=True, slots=True)
class Examples:
    """What the example browser shows.

    Attributes:
        total: How many samples there were to choose from.
        items: The chosen ones, in the order of the files, ready for JSON.
    """

    total: int
    items: list[dict[str, Any]]


def choose_examples(evaluations: Sequence[Evaluation]) -> Examples:
    """Chooses samples and reads their texts.

    Args:
        evaluations: Comparable with one another, read from files.
    """
    offsets = [{sample.cid: sample.offset for sample in evaluation.samples} for evaluation in evaluations]
    cids = list(dict.fromkeys(cid for known in offsets for cid in known))
    items: dict[str, dict[str, Any]] = {}
    left = MAX_BYTES
    for cid in rank_examples(evaluations, cids)[:MAX_EXAMPLES]:
        records = [
            evaluation.read(known[cid]) if cid in known else None
            for evaluation, known in zip(evaluations, offsets, strict=True)
        ]
        item = _item(records)
        size = len(json.dumps(item, ensure_ascii=False).encode())
        if size <= left:
            left -= size
            items[cid] = item
    return Examples(total=len(cids), items=[items[cid] for cid in cids if cid in items])


def rank_examples(evaluations: Sequence[Evaluation], cids: Sequence[str]) -> list[str]:
    """Orders samples so that any first part of them is a good choice; the same order every time.

    The first quarter of `MAX_EXAMPLES` are those on which the evaluations differ most (with one evaluation, its
    rollouts). The others take turns: one of each combination of truth and rounded mean reward in the first two
    evaluations, then the next of each.

    Args:
        evaluations: Where the samples come from.
        cids: All of them, each once.
    """
    position = {cid: number for number, cid in enumerate(cids)}
    should_stop = np.zeros(len(cids), dtype=np.int64)
    means = np.full((len(cids), len(evaluations)), np.nan)
    spread = np.zeros(len(cids))
    for column, evaluation in enumerate(evaluations):
        places = np.array([position[sample.cid] for sample in evaluation.samples])
        should_stop[places] = [sample.should_stop for sample in evaluation.samples]
        means[places, column], within = _mean_and_spread(evaluation)
        if len(evaluations) == 1:
            spread[places] = within
    if len(evaluations) > 1:
        spread = np.fmax.reduce(means, axis=1) - np.fmin.reduce(means, axis=1)
    order = np.array([crc32(cid.encode()) for cid in cids])
    most_different = np.lexsort((order, -np.nan_to_num(spread)))[: MAX_EXAMPLES // 4]
    strata = np.column_stack([should_stop, np.nan_to_num(np.rint(means[:, :2]), nan=-1)])
    _, stratum = np.unique(strata, axis=0, return_inverse=True)
    stratum = stratum.ravel()
    by_stratum = np.lexsort((order, stratum))
    starts = np.searchsorted(stratum[by_stratum], np.arange(stratum.max() + 1))
    turn = np.empty(len(cids), dtype=np.int64)
    turn[by_stratum] = np.arange(len(cids)) - starts[stratum[by_stratum]]
    ranked = [*most_different, *np.lexsort((stratum, turn))]
    return list(dict.fromkeys(cids[place] for place in ranked))


def _mean_and_spread(evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
    """For each sample the mean of its rollouts' rewards, NaN without scores, and the largest less the smallest."""
    rewards = evaluation.values[:, _REWARD]
    count = len(evaluation.samples)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(evaluation.sample, rewards, count) / np.bincount(evaluation.sample, minlength=count)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, evaluation.sample, rewards)
    np.maximum.at(high, evaluation.sample, rewards)
    return mean, np.where(np.isnan(mean), 0.0, high - low)


def _item(records: Sequence[GradedTask | None]) -> dict[str, Any]:
    """One sample with the rollouts of every evaluation; `None` for one that does not have it."""
    task = next(record for record in records if record is not None)
    return {
        "cid": task.cid,
        "diagnosis": diagnosis_label(task.diagn),
        "truth": task.decision_truth,
        "info": task.info_truth,
        "messages": task.messages,
        "speakers": {"user": task.domain.user, "assistant": task.domain.assistant},
        "evaluations": [None if record is None else _rollouts(record) for record in records],
    }


def _rollouts(record: GradedTask) -> list[dict[str, Any]]:
    """The rollouts of one evaluation with their grades."""
    regrades = record.regrades or [[] for _ in record.rollouts]
    return [
        {
            "text": rollout,
            "decision": decision(rollout, record.domain.stop_token),
            "action": grade.action_score,
            "format": grade.format_score,
            "content": grade.content_score,
            "reward": _reward(grade),
            "think": grade.think,
            "regrades": [again.model_dump() for again in more],
        }
        for rollout, grade, more in zip(record.rollouts, record.grades, regrades, strict=True)
    ]


def _reward(grade: Grade) -> float | None:
    """The reward of a rollout; `None` when its grading failed."""
    if grade.content_score is None or grade.format_score is None:
        return None
    return reward(action_score=grade.action_score, content_score=grade.content_score, format_score=grade.format_score)
