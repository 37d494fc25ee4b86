"""The evaluation metrics over all (sample, rollout) pairs (spec section 8).

A rollout whose grading failed has a decision and no grader's scores: it counts in the decision metrics, which need no
grader, and is left out of content, format and reward.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuner.learn_to_ask.core.records import Decision, Grade, GradedTask
from tuner.learn_to_ask.core.reward import decision, reward


@dataclass(frozen=True, slots=True)
class ScoredRollout:
    """One (sample, rollout) pair, ready to be averaged; content and format are `None` when grading failed."""

    session_id: str
    cid: str
    decision_truth: Decision
    decision: Decision
    action_score: float
    content_score: float | None
    format_score: float | None

    @property
    def rightly_continued(self) -> bool:
        """Whether it asked where asking was right."""
        return self.decision_truth == self.decision == "continue"

    @property
    def content_won(self) -> float | None:
        """1.0 for full content, else 0.0."""
        return None if self.content_score is None else float(self.content_score == 1.0)

    @property
    def reward(self) -> float | None:
        """The default Ra+Rs reward, whatever the policy was trained on."""
        if self.content_score is None or self.format_score is None:
            return None
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


def _where(applies: bool, value: float | None) -> float | None:
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
        lambda rollout: _where(rollout.decision_truth == "continue", rollout.content_won),
    ),
    "continue_content_if_correct": Metric(
        "Avg. continue content if correct",
        lambda rollout: _where(rollout.rightly_continued, rollout.content_score),
    ),
    "continue_content_win_rate_if_correct": Metric(
        "Win rate (continue content) if correct",
        lambda rollout: _where(rollout.rightly_continued, rollout.content_won),
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
    """The rollouts of one sample with their scores; a grading is whole or has failed."""
    return [
        ScoredRollout(
            session_id=graded_task.session_id,
            cid=graded_task.cid,
            decision_truth=graded_task.decision_truth,
            decision=decision(rollout, graded_task.domain.stop_token),
            action_score=grade.action_score,
            content_score=grade.content_score if _is_whole(grade) else None,
            format_score=grade.format_score if _is_whole(grade) else None,
        )
        for rollout, grade in zip(graded_task.rollouts, graded_task.grades, strict=True)
        if math.isfinite(grade.action_score)
    ]


def _is_whole(grade: Grade) -> bool:
    """Whether a grade has both of the grader's scores."""
    scores = (grade.content_score, grade.format_score)
    return all(score is not None and math.isfinite(score) for score in scores)


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
