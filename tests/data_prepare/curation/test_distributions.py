"""Bins of a figure before and after, by hand."""

from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.data_prepare.curation.distributions import distribution


def test_few_different_numbers_have_a_bin_each():
    found = distribution("messages", [3, 4, 4, 6], [True, True, False, False])

    assert found.labels == ["3", "4", "5", "6"]
    assert (found.before, found.after) == ([1, 2, 0, 1], [1, 1, 0, 0])
    assert found.quantiles_before[1] == 4
    assert found.quantiles_after[1] == 3.5


def test_the_last_bin_goes_up_to_the_highest():
    found = distribution("characters", [*range(1, 161), 99_999], [True] * 161)

    # 1 to 160 are sixteen bins of ten
    assert found.labels[0] == "1–10"
    assert found.labels[-1] == "151–99,999"
    assert found.before == [10] * 15 + [11]


def test_nothing_kept_has_no_quantiles():
    found = distribution("messages", [3], [False])

    assert (found.before, found.after, found.quantiles_after) == ([1], [0], [])


@given(st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), min_size=1, max_size=50))
def test_every_session_is_in_one_bin(sessions):
    found = distribution("messages", [value for value, _ in sessions], [kept for _, kept in sessions])

    assert sum(found.before) == len(sessions)
    assert sum(found.after) == sum(kept for _, kept in sessions)
    assert all(after <= before for before, after in zip(found.before, found.after, strict=True))
    assert len(found.labels) == len(found.before) <= 16
