"""The evaluation metrics over all (sample, rollout) pairs with finite scores (spec section 8)."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuner.learn_to_ask.core.records import Decision, GradedTask
from tuner.learn_to_ask.core.reward import decision, reward


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
    def rightly_continued(self) -> bool:
        """Whether it asked where asking was right."""
        return self.decision_truth == self.decision == "continue"

    @property
    def reward(self) -> float:
        """The default Ra+Rs reward, whatever the policy was trained on."""
        return reward(
            action_score=self.action_score,
            content_score=self.content_score,
            format_score=self.format_score,
        )


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean over some of the rollouts.

    Attributes:
        title: As the published table names it.
        value: What a rollout adds to the mean; `None` for one the metric is not about.
    """

    title: str
    value: Callable[[ScoredRollout], float | None]


def _where(applies: bool, value: float) -> float | None:
    """The value where the metric applies."""
    return value if applies else None


# In the order of the published table.
METRICS = {
    "continue_content": Metric(
        "Avg. continue content",
        lambda rollout: _where(rollout.decision_truth == "continue", rollout.content_score),
    ),
    "continue_content_win_rate": Metric(
        "Win rate (continue content)",
        lambda rollout: _where(rollout.decision_truth == "continue", float(rollout.content_score == 1.0)),
    ),
    "continue_content_if_correct": Metric(
        "Avg. continue content if correct",
        lambda rollout: _where(rollout.rightly_continued, rollout.content_score),
    ),
    "continue_content_win_rate_if_correct": Metric(
        "Win rate (continue content) if correct",
        lambda rollout: _where(rollout.rightly_continued, float(rollout.content_score == 1.0)),
    ),
    "continue_decision_accuracy": Metric(
        "Avg. continue decision accuracy",
        lambda rollout: _where(rollout.decision_truth == "continue", rollout.action_score),
    ),
    "stop_decision_accuracy": Metric(
        "Avg. stop decision accuracy",
        lambda rollout: _where(rollout.decision_truth == "stop", rollout.action_score),
    ),
    "total_decision_accuracy": Metric("Total decision accuracy", lambda rollout: rollout.action_score),
    "response_format_quality": Metric("Response format quality", lambda rollout: rollout.format_score),
    "total_reward": Metric("Total reward", lambda rollout: rollout.reward),
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
        A value for each key of `METRICS`; `None` for a metric over zero pairs.
    """
    every = list(rollouts)
    return {key: _mean(map(metric.value, every)) for key, metric in METRICS.items()}


def _mean(values: Iterable[float | None]) -> float | None:
    """The arithmetic mean of the numbers; `None` of nothing."""
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None
