"""The expected best of k rollouts: by hand, against all choices written out, and against pass@k."""

from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.evaluation.best_of import expected_best

REWARDS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5, 3.0, 4.0]) | st.floats(0, 4), min_size=1, max_size=8)


def best(*rewards):
    [row] = expected_best(np.array([rewards], dtype=np.float64)).tolist()
    return row


def test_three_rollouts_by_hand():
    # One: (1 + 2 + 4) / 3. Two: {1, 2}, {1, 4} and {2, 4} have the largest 2, 4 and 4. Three: 4.
    assert best(4.0, 1.0, 2.0) == pytest.approx([7 / 3, 10 / 3, 4.0])


def test_a_single_rollout_is_its_own_best():
    assert best(2.5) == [2.5]


def test_every_sample_has_its_own_row_and_no_sample_has_none():
    assert expected_best(np.array([[0.0, 4.0], [3.0, 3.0]])).tolist() == [[2.0, 4.0], [3.0, 3.0]]
    assert expected_best(np.empty((0, 3))).shape == (0, 3)


@given(REWARDS)
def test_it_is_the_mean_over_all_choices(rewards):
    slow = [sum(map(max, combinations(rewards, k))) / comb(len(rewards), k) for k in range(1, len(rewards) + 1)]

    assert best(*rewards) == pytest.approx(slow)


@given(REWARDS)
def test_more_rollouts_are_never_worse_and_all_of_them_give_the_largest(rewards):
    found = best(*rewards)

    assert all(after >= before - 1e-9 for before, after in pairwise(found))
    assert (found[0], found[-1]) == (pytest.approx(np.mean(rewards)), pytest.approx(max(rewards)))


@given(st.integers(1, 12), st.data())
def test_for_right_and_wrong_it_is_pass_at_k(n, data):
    right = data.draw(st.integers(0, n))

    found = best(*([1.0] * right + [0.0] * (n - right)))

    assert found == pytest.approx([1 - comb(n - right, k) / comb(n, k) for k in range(1, n + 1)])


def test_many_rollouts_do_not_overflow():
    found = best(*range(300))

    assert found[0] == pytest.approx(149.5) and found[-1] == pytest.approx(299)
