"""Which fields a question asks for, by shared words: by hand, in three domains, and where items are no items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import session

from tuner.learn_to_ask.evaluation.field_coverage import (
    NO_FIELD,
    asked_items,
    field_of,
    item_words,
    shares_asked,
)

COLD = ["symptom: dry cough", "symptom: fever", "symptom severity: 39 degrees", "symptom trigger: cold air"]
PRINTER = ["device: shared floor printer", "error message: paper jam"]
STOMACH = ["症状性质: 水样便", "症状程度: 每日4至5次"]


def asked_by(items, message):
    """What a message asks for where nothing is known of what followed."""
    return asked_items(item_words(items, [], []), message)


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("symptom: cough", "symptom"),
        ("Symptom_Nature: dry: very", "symptom nature"),
        ("症状性质：水样便", "症状性质"),
        ("cough", NO_FIELD),
        (": cough", NO_FIELD),
        ("", NO_FIELD),
    ],
)
def test_the_field_of_an_item(item, field):
    assert field_of(item) == field


@pytest.mark.parametrize(
    ("items", "message", "asked"),
    [
        (COLD, "Is the cough dry or with phlegm?", [0]),
        (COLD, "How many degrees is the fever?", [1]),  # both share a word; one question asks for one item
        (COLD, "Do you have a fever? How many degrees?", [1, 2]),
        (COLD, "Does cold air make it worse?", [3]),
        (COLD, "How high is it?", []),  # shares no word with its item
        (COLD, "Do you smoke?", []),
        (COLD, "", []),
        (PRINTER, "Is it a shared printer?", [0]),
        (PRINTER, "What does the error message say?", [1]),
        (STOMACH, "大便是什么性质？", [0]),
        (["cough", "fever"], "Is there a fever?", [1]),
        ([], "Is there a fever?", []),
    ],
)
def test_a_question_asks_for_the_item_with_which_it_shares_most(items, message, asked):
    assert asked_by(items, message) == asked


LOG = session(
    "p: i feel ill",
    "d: how high did your temperature get?",
    "p: up to 39 degrees",
    "d: does anything bring it on?",
    "p: whenever i go out into the wind",
)
HOT = ["symptom severity: 39 degrees", "symptom trigger: cold air"]


@pytest.mark.parametrize(
    ("dialogue", "message", "asked"),
    [
        (LOG, "What is your temperature?", [0]),  # the logged question, which the item was the answer to
        (LOG, "Is it worse in the wind?", [1]),  # the user's own word
        (LOG, "Does cold air bring it on?", [1]),
        (LOG, "Do you feel ill?", []),  # told before
        (session("p: another log", "d: how high did your temperature get?", "p: 39"), "What is your temperature?", []),
    ],
)
def test_what_followed_in_the_log_tells_more(dialogue, message, asked):
    assert asked_items(item_words(HOT, LOG.messages[:1], dialogue.messages), message) == asked


def test_in_a_session_that_was_cut_the_items_have_only_their_own_words():
    words = item_words(HOT, LOG.messages[:1], LOG.messages[:3])

    assert asked_items(words, "What is your temperature?") == [0]
    assert asked_items(words, "Is it worse in the wind?") == []
    assert asked_items(words, "Is it the cold?") == [1]


def test_the_shares_of_the_fields_by_hand():
    # One of two symptoms and the trigger
    assert shares_asked(COLD, [0, 3]) == {"symptom": 0.5, "symptom severity": 0.0, "symptom trigger": 1.0}
    assert shares_asked(["cough", "fever: 39"], [0]) == {NO_FIELD: 1.0, "fever": 0.0}
    assert shares_asked([], []) == {}


TEXTS = st.sampled_from(["cough", "fever", "dry cough", "39", "咳嗽", "cold air", ":", ""])
ITEMS = st.lists(st.tuples(st.sampled_from(["symptom: ", "trigger: ", ""]), TEXTS).map("".join), max_size=6)


@given(ITEMS, st.lists(TEXTS, max_size=5).map(" ".join))
def test_as_many_items_are_asked_for_as_the_shares_say(items, message):
    asked = asked_by(items, message)
    shares = shares_asked(items, asked)

    there = [field_of(item) for item in items]
    assert all(0 <= place < len(items) for place in asked) and len(set(asked)) == len(asked)
    assert set(shares) == set(there)
    assert sum(share * there.count(field) for field, share in shares.items()) == pytest.approx(len(asked))


@given(ITEMS)
def test_a_message_without_telling_words_asks_for_nothing(items):
    assert asked_by(items, "and what about it?") == []
