"""Rollouts without a reward take no part in the update, and never make the trainer wait."""

import asyncio
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trinity.algorithm.advantage_fn.grpo_advantage import GRPOGroupedAdvantage
from trinity.common.experience import EID, Experience

from tuner.learn_to_ask.training.failed_rollouts import LeaveOutFailedRollouts, fill_in

NAN = math.nan


def rollout(task, reward):
    return Experience(
        eid=EID(batch=1, task=task, run=0, step=0),
        tokens=torch.tensor([1, 2, 3, 4]),
        prompt_length=2,
        logprobs=torch.tensor([-0.5, -0.5]),
        reward=reward,
    )


def process(rollouts, size):
    return asyncio.run(LeaveOutFailedRollouts(size).process(rollouts))


def advantages(rollouts):
    """As Trinity's own GRPO computes them."""
    exps, _ = GRPOGroupedAdvantage().process(rollouts)
    return {(exp.eid.task, exp.reward): exp.advantages.tolist()[0] for exp in exps}


@given(st.lists(st.one_of(st.just(NAN), st.floats(0, 4)), min_size=1, max_size=16))
def test_known_rewards_stay_and_missing_ones_become_their_mean(rewards):
    filled = fill_in(rewards)

    known = [reward for reward in rewards if not math.isnan(reward)]
    assert [new for old, new in zip(rewards, filled, strict=True) if not math.isnan(old)] == known
    mean = sum(known) / len(known) if known else 0.0
    assert [new for old, new in zip(rewards, filled, strict=True) if math.isnan(old)] == pytest.approx(
        [mean] * (len(rewards) - len(known))
    )


def test_a_rollout_that_could_not_be_graded_has_no_advantage():
    # Given a group with rewards 4, 2 and one unknown; by hand: mean 3.
    rollouts, metrics = process([rollout("a", 4.0), rollout("a", 2.0), rollout("a", NAN)], 3)

    assert [exp.reward for exp in rollouts] == [4.0, 2.0, 3.0]
    found = advantages(rollouts)
    assert found["a", 3.0] == 0.0
    assert found["a", 4.0] > 0 > found["a", 2.0]
    assert metrics == {"ungraded_rollouts": 1, "missing_rollouts": 0}


def test_a_group_that_never_arrived_is_made_up_by_rollouts_without_an_advantage():
    # Given a step of three groups of two, of which the third failed.
    arrived = [rollout("a", 4.0), rollout("a", 2.0), rollout("b", 1.0), rollout("b", 3.0)]

    rollouts, metrics = process(arrived, 6)

    assert len(rollouts) == 6
    assert metrics == {"ungraded_rollouts": 0, "missing_rollouts": 2}
    found = advantages(rollouts)
    assert [value for (task, _), value in found.items() if task.startswith("missing")] == [0.0, 0.0]
    # The groups that arrived are not touched: +-1/sqrt(2) for two rewards one apart from their mean.
    assert found["a", 4.0] == pytest.approx(1 / math.sqrt(2), rel=1e-3)
    assert len({(exp.eid.task, exp.eid.run) for exp in rollouts if exp.eid.task.startswith("missing")}) == 2


def test_a_whole_step_passes_as_it_is():
    rollouts, metrics = process([rollout("a", 4.0), rollout("a", 2.0)], 2)

    assert [exp.reward for exp in rollouts] == [4.0, 2.0]
    assert metrics == {"ungraded_rollouts": 0, "missing_rollouts": 0}


@pytest.mark.parametrize(
    ("arrived", "said"),
    [
        ([rollout("a", NAN), rollout("a", NAN), rollout("b", 1.0), rollout("b", NAN)], "3 of 4 .* and 0 failed"),
        ([rollout("a", 1.0)], "0 of 4 .* and 3 failed"),
        ([], "0 of 4 .* and 4 failed"),
    ],
)
def test_a_step_that_mostly_failed_stops_the_run_instead_of_teaching_nothing(arrived, said):
    with pytest.raises(RuntimeError, match=said):
        process(arrived, 4)


def test_trinity_finds_the_operator_by_the_name_that_the_config_gives():
    from trinity.buffer.operators import EXPERIENCE_OPERATORS

    from tuner.learn_to_ask.training.config_file import _OPERATOR

    assert EXPERIENCE_OPERATORS.get(_OPERATOR) is LeaveOutFailedRollouts
