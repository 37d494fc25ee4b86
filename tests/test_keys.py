"""The set of keys in few bytes does what Python's own set and dictionary do."""

from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.keys import Keys


@given(st.lists(st.text(max_size=3)))
def test_keys_are_told_apart_and_numbered_in_the_order_in_which_they_came(texts):
    keys, known = Keys(), {}
    for text in texts:
        assert keys.find(text) == known.get(text, -1)
        assert keys.add(text) == (text not in known)
        known.setdefault(text, len(known))
        assert keys.find(text) == known[text]
    assert len(keys) == len(known)


def test_many_keys_take_less_than_twenty_five_bytes_each():
    keys = Keys()
    assert all(keys.add(f"{number}_0") for number in range(100_000))
    assert not any(keys.add(f"{number}_0") for number in range(100_000))
    assert [keys.find(f"{number}_0") for number in (0, 50_000, 99_999, 100_000)] == [0, 50_000, 99_999, -1]
    held = keys._hashes.buffer_info()[1] * keys._hashes.itemsize + keys._places.itemsize * len(keys._places)
    assert held < 25 * 100_000
