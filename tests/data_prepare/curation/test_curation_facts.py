"""What is counted in a session, by hand."""

import pytest
from sessions import END, healthy, session

from tuner.learn_to_ask.data_prepare.curation.facts import Facts, facts_of


def facts(*lines):
    return facts_of(session(*lines), end_marker=END)


def test_every_figure_of_a_session():
    found = facts(
        "d: hello",
        "p: a cough",
        "d: since when? is it dry?",
        "d: any fever?",
        "p: two days",
        "d: ok",
        "p: a cough",
        f"d: {END}",
    )

    # Visible: hello 5, acough 6, sincewhen?isitdry? 18, anyfever? 9, twodays 7, ok 2, acough 6
    letters, visible = 5 + 6 + 16 + 8 + 7 + 2 + 6, 5 + 6 + 18 + 9 + 7 + 2 + 6
    assert found == Facts(
        messages=8,
        patient_messages=3,
        doctor_messages=5,
        characters=5 + 7 + 22 + 10 + 8 + 2 + 7,
        after_end=0,
        questions=3,
        asking_turns=1,
        answered_questions=3,
        repeated_share=pytest.approx(1 / 7),  # "a cough" once more, of seven texts
        letter_share=letters / visible,
        spam_marks=0,
    )


@pytest.mark.parametrize(
    ("lines", "after"),
    [
        (["p: hi", f"d: {END}"], 0),
        (["p: hi", f"d: thank you {END}"], 0),
        (["p: hi", f"d: {END}", "p: thanks", "d: bye"], 2),
        (["p: hi", "d: hello"], None),
        (["p: hi", f"p: {END}"], None),  # the patient cannot end an interview
    ],
)
def test_the_end_is_the_doctors_first(lines, after):
    assert facts(*lines).after_end == after


def test_questions_before_the_end_that_nobody_waits_for_are_not_answered():
    found = facts("p: hi", "d: since when?", "p: today", "d: is it dry?", f"d: {END}")

    assert (found.questions, found.asking_turns, found.answered_questions) == (2, 2, 1)


def test_chinese_question_marks_and_particles_count():
    found = facts("p: 嗓子疼", "d: 几天了？有没有发烧？", "p: 三天", "d: 咳嗽吗", "p: 不", f"d: {END}")

    assert (found.questions, found.answered_questions) == (3, 3)


@pytest.mark.parametrize(
    ("text", "share"),
    [("abc", 1.0), ("ab12", 0.5), ("嗓子疼", 1.0), ("हिन्दी", 1.0), ("!!!", 0.0), ("зуб 12", 0.6)],
)
def test_letters_of_any_script_are_letters(text, share):
    assert facts(f"p: {text}", f"d: {END}").letter_share == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("see https://x.example and www.y.example", 2),
        ("Click here for a PROMO CODE", 2),
        ("加微信领取", 1),
        ("i use a coupon", 1),
        ("my sputum is yellow", 0),
    ],
)
def test_marks_of_advertising(text, marks):
    assert facts(f"p: {text}", f"d: {END}").spam_marks == marks


def test_the_end_marker_beside_a_text_is_no_part_of_it():
    assert facts("p: hi", f"d: bye{END}").characters == 5
    assert facts_of(healthy(), end_marker=END).repeated_share == 0
