"""The evaluation metrics over all (sample, rollout) pairs with finite scores (spec section 8)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tuner.learn_to_ask.records import Decision, GradedTask
from tuner.learn_to_ask.reward import decision, reward


@dataclass(frozen=True, slots=True)
class ScoredRollout:
    """One (sample, rollout) pair with finite scores, ready to be averaged."""

    session_id: str
    cid: str
    decision_truth: Decision
    decision: Decision
    action_score: float
    content_score: float
    format_score: float

    @property
    def reward(self) -> float:
        """The default Ra+Rs reward, whatever the policy was trained on."""
        return reward(
            action_score=self.action_score,
            content_score=self.content_score,
            format_score=self.format_score,
        )


# Metric key -> title, in the order of the published table.
METRIC_TITLES = {
    "continue_content": "Avg. continue content",
    "continue_content_win_rate": "Win rate (continue content)",
    "continue_content_if_correct": "Avg. continue content if correct",
    "continue_content_win_rate_if_correct": "Win rate (continue content) if correct",
    "continue_decision_accuracy": "Avg. continue decision accuracy",
    "stop_decision_accuracy": "Avg. stop decision accuracy",
    "total_decision_accuracy": "Total decision accuracy",
    "response_format_quality": "Response format quality",
    "total_reward": "Total reward",
}


def scored_rollouts(graded_task: GradedTask) -> list[ScoredRollout]:
    """The rollouts of one sample whose scores are finite; those whose grading failed are left out."""
    return [
        ScoredRollout(
            session_id=graded_task.session_id,
            cid=graded_task.cid,
            decision_truth=graded_task.decision_truth,
            decision=decision(rollout),
            action_score=grade.action_score,
            content_score=grade.content_score,
            format_score=grade.format_score,
        )
        for rollout, grade in zip(graded_task.rollouts, graded_task.grades, strict=True)
        if grade.content_score is not None
        and grade.format_score is not None
        and math.isfinite(grade.action_score + grade.content_score + grade.format_score)
    ]


def compute_metrics(rollouts: Iterable[ScoredRollout]) -> dict[str, float | None]:
    """Averages the scores of an evaluation.

    Args:
        rollouts: All (sample, rollout) pairs of the evaluation.

    Returns:
        A value for each key of `METRIC_TITLES`; `None` for a metric over zero pairs.
    """
    every = list(rollouts)
    to_continue = [rollout for rollout in every if rollout.decision_truth == "continue"]
    to_stop = [rollout for rollout in every if rollout.decision_truth == "stop"]
    continued = [rollout for rollout in to_continue if rollout.decision == "continue"]
    return {
        "continue_content": _mean(rollout.content_score for rollout in to_continue),
        "continue_content_win_rate": _mean(float(rollout.content_score == 1.0) for rollout in to_continue),
        "continue_content_if_correct": _mean(rollout.content_score for rollout in continued),
        "continue_content_win_rate_if_correct": _mean(float(rollout.content_score == 1.0) for rollout in continued),
        "continue_decision_accuracy": _mean(rollout.action_score for rollout in to_continue),
        "stop_decision_accuracy": _mean(rollout.action_score for rollout in to_stop),
        "total_decision_accuracy": _mean(rollout.action_score for rollout in every),
        "response_format_quality": _mean(rollout.format_score for rollout in every),
        "total_reward": _mean(rollout.reward for rollout in every),
    }


def _mean(values: Iterable[float]) -> float | None:
    """The arithmetic mean; `None` of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None
