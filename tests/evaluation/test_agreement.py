"""Grader reliability against figures worked out by hand and a slow version of the definition."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.evaluation.agreement import agreement

NAN = math.nan


def test_two_grades_each_by_hand():
    # Pairs: 1-1, 1-0.5, 0-0. Differences 0, 0.5, 0.
    # alpha: observed = (0 + 2 * 0.25 + 0) / 6. All six grades: 1 1 1 0.5 0 0, sum 3.5, squares 3.25;
    # sum of squared differences over ordered pairs = 2 * (6 * 3.25 - 3.5 ** 2) = 14.5; expected = 14.5 / 30.
    found = agreement(np.array([[1.0, 1.0], [1.0, 0.5], [0.0, 0.0]]))

    assert found.rollouts == 3
    assert found.exact == pytest.approx(2 / 3)
    assert found.mean_absolute_difference == pytest.approx(0.5 / 3)
    assert found.alpha == pytest.approx(1 - (0.5 / 6) / (14.5 / 30))


def test_rollouts_with_fewer_than_two_grades_do_not_count():
    found = agreement(np.array([[1.0, 1.0, NAN], [0.5, NAN, NAN], [NAN, NAN, NAN], [0.0, NAN, 0.5]]))

    assert found.rollouts == 2
    assert found.exact == 0.5


@pytest.mark.parametrize("ratings", [np.zeros((0, 0)), np.zeros((0, 3)), np.array([[1.0, NAN]])])
def test_without_repeated_grades_nothing_is_said(ratings):
    found = agreement(ratings)

    assert (found.rollouts, found.exact, found.mean_absolute_difference, found.alpha) == (0, None, None, None)


@pytest.mark.parametrize("score", [0.0, 0.1, 1.0])
def test_grades_that_are_all_the_same_agree_but_have_no_alpha(score):
    found = agreement(np.full((7, 3), score))

    assert (found.exact, found.mean_absolute_difference, found.alpha) == (1.0, 0.0, None)


def slow_alpha(units):
    """Krippendorff's definition, pair by pair."""
    units = [unit for unit in units if len(unit) >= 2]
    every = [score for unit in units for score in unit]
    observed = sum(sum((a - b) ** 2 for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(every)
    expected = sum((a - b) ** 2 for a, b in permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - observed / expected if expected else None


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=4), min_size=1, max_size=8))
def test_alpha_is_that_of_the_definition(units):
    width = max(map(len, units))
    ratings = np.array([unit + [NAN] * (width - len(unit)) for unit in units])

    found = agreement(ratings)

    if found.rollouts:
        expected = slow_alpha(units)
        assert found.alpha is None if expected is None else found.alpha == pytest.approx(expected, abs=1e-9)
