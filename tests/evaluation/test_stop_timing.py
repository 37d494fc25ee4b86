"""How many turns too early a stop comes: by hand, in any order of the samples, and where the log does not tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.evaluation.stop_timing import STOP_METRICS, early_counts, timing_values, turns_left

# Session, how often the user has spoken, whether the log stops there.
PLACES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.booleans()), unique_by=lambda place: place[:2], max_size=20
)


def left(*places):
    sessions, depths, stops = zip(*places, strict=True) if places else ((), (), ())
    return turns_left(sessions, depths, stops)


def test_turns_are_counted_to_where_the_log_stops():
    assert left(("a", 1, False), ("a", 2, False), ("a", 3, True)) == [2, 1, 0]


def test_a_dropped_sample_in_between_is_a_turn_all_the_same():
    assert left(("a", 1, False), ("a", 4, True)) == [3, 0]


def test_a_session_that_was_cut_does_not_tell():
    assert left(("a", 1, False), ("a", 2, False), ("b", 1, False), ("b", 2, True)) == [None, None, 1, 0]


def test_sessions_of_one_sample():
    assert left(("a", 1, True), ("b", 5, False)) == [0, None]
    assert left() == []


def test_of_several_ends_the_first_later_one_counts():
    # as in a file of two logs with one session id
    assert left(("a", 1, False), ("a", 2, True), ("a", 4, False), ("a", 6, True), ("a", 7, False)) == [1, 0, 2, 0, None]


@given(PLACES, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(places, random):
    shuffled = random.sample(places, len(places))

    assert dict(zip(shuffled, left(*shuffled), strict=True)) == dict(zip(places, left(*places), strict=True))


@given(PLACES)
def test_going_on_turn_by_turn_leads_to_the_end(places):
    ends = {(session, depth) for session, depth, stop in places if stop}
    for (session, depth, stop), turns in zip(places, left(*places), strict=True):
        # Slowly: walk on until the log stops, or until no sample can come any more.
        walked = next((step for step in range(0 if stop else 1, 12) if (session, depth + step) in ends), None)
        assert turns == walked


def test_what_rollouts_add_by_hand():
    # A stop two turns early, one in time, one of unknown end; a question where asking is right, one where it is late.
    turns = np.array([2.0, 0.0, np.nan, 2.0, 0.0])
    stopped = np.array([True, True, True, False, False])

    values = dict(zip(STOP_METRICS, timing_values(turns, stopped).T, strict=True))

    none = np.nan
    assert values["turns_too_early"] == pytest.approx([2, none, none, none, none], nan_ok=True)
    assert values["turns_early"] == pytest.approx([2, 0, none, none, none], nan_ok=True)
    assert values["late"] == pytest.approx([none, 0, none, none, 1], nan_ok=True)
    assert early_counts(turns, stopped) == {0: 1, 2: 1}


def test_without_rollouts_there_is_nothing():
    nothing = np.array([], dtype=np.float64)

    assert timing_values(nothing, nothing.astype(bool)).shape == (0, len(STOP_METRICS))
    assert early_counts(nothing, nothing.astype(bool)) == {}
