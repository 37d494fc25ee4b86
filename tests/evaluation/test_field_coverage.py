"""Which fields a question asks for, by shared words: by hand, in three domains, and where items are no items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.evaluation.field_coverage import NO_FIELD, asked_items, field_of, shares_asked

COLD = ["symptom: dry cough", "symptom: fever", "symptom severity: 39 degrees", "symptom trigger: cold air"]
PRINTER = ["device: shared floor printer", "error message: paper jam"]
STOMACH = ["症状性质: 水样便", "症状程度: 每日4至5次"]


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
    assert asked_items(items, message) == asked


def test_the_shares_of_the_fields_by_hand():
    # One of two symptoms and the trigger
    assert shares_asked(COLD, [0, 3]) == {"symptom": 0.5, "symptom severity": 0.0, "symptom trigger": 1.0}
    assert shares_asked(["cough", "fever: 39"], [0]) == {NO_FIELD: 1.0, "fever": 0.0}
    assert shares_asked([], []) == {}


TEXTS = st.sampled_from(["cough", "fever", "dry cough", "39", "咳嗽", "cold air", ":", ""])
ITEMS = st.lists(st.tuples(st.sampled_from(["symptom: ", "trigger: ", ""]), TEXTS).map("".join), max_size=6)


@given(ITEMS, st.lists(TEXTS, max_size=5).map(" ".join))
def test_as_many_items_are_asked_for_as_the_shares_say(items, message):
    asked = asked_items(items, message)
    shares = shares_asked(items, asked)

    there = [field_of(item) for item in items]
    assert all(0 <= place < len(items) for place in asked) and len(set(asked)) == len(asked)
    assert set(shares) == set(there)
    assert sum(share * there.count(field) for field, share in shares.items()) == pytest.approx(len(asked))


@given(ITEMS)
def test_a_message_without_telling_words_asks_for_nothing(items):
    assert asked_items(items, "and what about it?") == []
