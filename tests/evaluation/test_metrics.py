"""The evaluation metrics, by hand (spec section 8)."""

import math

import pytest

from tuner.learn_to_ask.core.records import Grade, GradedTask
from tuner.learn_to_ask.evaluation.metrics import compute_metrics, scored_rollouts

KEYS = [
    "continue_content",
    "continue_content_win_rate",
    "continue_content_if_correct",
    "continue_content_win_rate_if_correct",
    "continue_decision_accuracy",
    "stop_decision_accuracy",
    "total_decision_accuracy",
    "response_format_quality",
    "total_reward",
]
STOP = "<stop />"
WRONG = Grade(action_score=0.0, format_score=0.0, content_score=0.0)
UNGRADED = Grade(action_score=1.0, format_score=None, content_score=None)


def asked(format_score, content_score):
    """The grade of a question where asking was right."""
    return Grade(action_score=1.0, format_score=format_score, content_score=content_score)


def graded_task(decision_truth, answers, cid="1_0"):
    return GradedTask(
        cid=cid,
        session_id=cid.partition("_")[0],
        messages=[{"role": "user", "content": "I have a cough"}],
        decision_truth=decision_truth,
        info_truth="symptom: cough",
        rollouts=[rollout for rollout, _ in answers],
        grades=[grade for _, grade in answers],
    )


def metrics_of(*tasks):
    return compute_metrics(rollout for task in tasks for rollout in scored_rollouts(task))


def test_every_metric_of_a_small_evaluation():
    # Given two samples to continue from and two to stop at, three rollouts each
    metrics = metrics_of(
        graded_task("continue", [("Dry?", asked(1.0, 1.0)), ("Ill? Old?", asked(0.5, 0.5)), (STOP, WRONG)], "1_0"),
        graded_task("continue", [("Dry?", asked(1.0, 0.0)), ("Hm.", UNGRADED), (f"Hm. {STOP}", WRONG)], "2_0"),
        graded_task("stop", [(STOP, asked(1.0, 1.0)), (f"Bye {STOP}", asked(0.0, 1.0)), ("Dry?", WRONG)], "1_2"),
        graded_task("stop", [("Dry?", WRONG), ("Dry?", WRONG), (STOP, asked(1.0, 1.0))], "2_2"),
    )
    # Then 6 pairs to continue from count, one of them, never graded, for its decision alone, and 6 to stop at
    assert list(metrics) == KEYS
    assert metrics == {
        "continue_content": pytest.approx((1.0 + 0.5 + 0.0 + 0.0 + 0.0) / 5),
        "continue_content_win_rate": pytest.approx(1 / 5),
        "continue_content_if_correct": pytest.approx((1.0 + 0.5 + 0.0) / 3),
        "continue_content_win_rate_if_correct": pytest.approx(1 / 3),
        "continue_decision_accuracy": pytest.approx(4 / 6),
        "stop_decision_accuracy": pytest.approx(3 / 6),
        "total_decision_accuracy": pytest.approx(7 / 12),
        "response_format_quality": pytest.approx((1.0 + 0.5 + 1.0 + 1.0 + 0.0 + 1.0) / 11),
        # 1+2*1+1, 1+2*0.5+0.5, 1+0+1, then the stops: 4, 3, 4
        "total_reward": pytest.approx((4.0 + 2.5 + 2.0 + 4.0 + 3.0 + 4.0) / 11),
    }


def test_without_any_rollout_there_is_no_metric():
    assert compute_metrics([]) == dict.fromkeys(KEYS)


def test_metrics_over_no_pair_are_none_when_every_sample_stops():
    metrics = metrics_of(graded_task("stop", [(STOP, asked(1.0, 1.0))]))
    assert metrics == {
        "continue_content": None,
        "continue_content_win_rate": None,
        "continue_content_if_correct": None,
        "continue_content_win_rate_if_correct": None,
        "continue_decision_accuracy": None,
        "stop_decision_accuracy": 1.0,
        "total_decision_accuracy": 1.0,
        "response_format_quality": 1.0,
        "total_reward": 4.0,
    }


def test_metrics_over_no_pair_are_none_when_every_sample_continues_and_every_rollout_stops():
    metrics = metrics_of(graded_task("continue", [(STOP, WRONG)]))
    assert metrics == {
        "continue_content": 0.0,
        "continue_content_win_rate": 0.0,
        "continue_content_if_correct": None,
        "continue_content_win_rate_if_correct": None,
        "continue_decision_accuracy": 0.0,
        "stop_decision_accuracy": None,
        "total_decision_accuracy": 0.0,
        "response_format_quality": 0.0,
        "total_reward": 0.0,
    }


def test_almost_perfect_content_is_no_win():
    metrics = metrics_of(graded_task("continue", [("Dry?", asked(1.0, 0.99)), ("Dry?", asked(1.0, 1.0))]))
    assert metrics["continue_content_win_rate"] == metrics["continue_content_win_rate_if_correct"] == 0.5


@pytest.mark.parametrize(
    "scores",
    [
        {"format_score": None, "content_score": None},
        {"format_score": 1.0, "content_score": None},
        {"format_score": None, "content_score": 1.0},
        {"format_score": math.nan, "content_score": 1.0},
        {"format_score": 1.0, "content_score": math.nan},
        {"format_score": math.inf, "content_score": 1.0},
    ],
    ids=str,
)
def test_a_rollout_whose_grading_failed_counts_for_its_decision_alone(scores):
    # Given one without two finite scores, and a sound one
    unusable = Grade.model_construct(**{"action_score": 1.0, **scores})
    task = graded_task("continue", [("Dry?", asked(1.0, 1.0)), ("Ill?", asked(1.0, 1.0))])
    task.grades[0] = unusable
    rollouts = scored_rollouts(task)
    assert [(rollout.content_score, rollout.format_score) for rollout in rollouts] == [(None, None), (1.0, 1.0)]
    assert [rollout.reward for rollout in rollouts] == [None, 4.0]
    assert compute_metrics(rollouts) == {
        "continue_content": 1.0,
        "continue_content_win_rate": 1.0,
        "continue_content_if_correct": 1.0,
        "continue_content_win_rate_if_correct": 1.0,
        "continue_decision_accuracy": 1.0,
        "stop_decision_accuracy": None,
        "total_decision_accuracy": 1.0,
        "response_format_quality": 1.0,
        "total_reward": 4.0,
    }


def test_a_scored_rollout_knows_its_sample_its_decision_and_its_reward():
    first, second = scored_rollouts(graded_task("continue", [("Dry?", asked(0.5, 1.0)), (STOP, WRONG)], "35310_7"))
    assert (first.session_id, first.cid, first.decision_truth, first.decision) == (
        "35310",
        "35310_7",
        "continue",
        "continue",
    )
    assert (second.decision_truth, second.decision) == ("continue", "stop")
    assert (first.reward, second.reward) == (3.5, 0.0)
