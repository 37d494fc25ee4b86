"""The reward of one response, by hand (spec section 6)."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuner.learn_to_ask.core.grading import parse_grade
from tuner.learn_to_ask.core.records import Grade
from tuner.learn_to_ask.core.reward import (
    FUSION_MODES,
    STOP,
    TRAIN_MODES,
    Scores,
    decision,
    grade,
    needs_grader,
    reward,
)

QUESTION = "Is the cough dry, or does phlegm come up?"
GRADED = Scores(format_score=0.5, content_score=1.0, think="asks about the phlegm")


def test_the_stop_action_is_spelled_as_the_prompt_says():
    assert STOP == "<stop />"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<stop />", "stop"),
        ("Thank you, that is all. <stop />", "stop"),
        ("<stop />\n", "stop"),
        ("a<stop />b<stop />", "stop"),
        (QUESTION, "continue"),
        ("", "continue"),
        ("<stop/>", "continue"),
        ("<Stop />", "continue"),
        ("stop", "continue"),
        ("< stop />", "continue"),
    ],
)
def test_a_response_stops_when_it_holds_the_stop_action_anywhere(response, expected):
    assert decision(response) == expected


@pytest.mark.parametrize(
    ("response", "decision_truth", "expected"),
    [
        (QUESTION, "continue", True),
        (STOP, "continue", False),
        (QUESTION, "stop", False),
        (STOP, "stop", False),
        (f"{QUESTION} {STOP}", "continue", False),
    ],
)
def test_only_a_question_where_asking_is_right_needs_a_grader(response, decision_truth, expected):
    assert needs_grader(response, decision_truth) is expected


def test_a_right_question_gets_the_scores_of_the_grader():
    assert grade(QUESTION, "continue", GRADED) == Grade(
        think="asks about the phlegm", action_score=1.0, format_score=0.5, content_score=1.0
    )


def test_a_right_question_that_could_not_be_graded_has_open_scores():
    assert grade(QUESTION, "continue", None) == Grade(action_score=1.0, format_score=None, content_score=None)


def test_a_question_where_it_was_time_to_stop_earns_nothing():
    assert grade(QUESTION, "stop", GRADED) == Grade(action_score=0.0, format_score=0.0, content_score=0.0)


@pytest.mark.parametrize("response", [STOP, f"{STOP} ", f"{QUESTION} {STOP}"])
def test_a_stop_where_asking_was_right_earns_nothing(response):
    assert grade(response, "continue", GRADED) == Grade(action_score=0.0, format_score=0.0, content_score=0.0)


def test_a_right_stop_that_is_exactly_the_stop_action_earns_everything():
    assert grade("<stop />", "stop") == Grade(action_score=1.0, format_score=1.0, content_score=1.0)


@pytest.mark.parametrize("response", ["<stop /> ", "\n<stop />", "Take care. <stop />", "<stop /><stop />"])
def test_a_right_stop_with_anything_around_it_loses_its_format_score(response):
    assert grade(response, "stop") == Grade(action_score=1.0, format_score=0.0, content_score=1.0)


def test_the_scores_of_a_grader_are_not_read_where_none_is_needed():
    assert grade(STOP, "stop", Scores(format_score=0.0, content_score=0.0)) == grade(STOP, "stop")


@pytest.mark.parametrize(
    ("response", "decision_truth", "scores", "ra_rs", "ra_rs_sum", "ra", "rs"),
    [
        # right question, one question, spot on: 1*(1+2*1)+1, 1+1+1, 2*1+1, 3*1+1
        pytest.param(QUESTION, "continue", Scores(1.0, 1.0), 4.0, 3.0, 3.0, 4.0, id="perfect question"),
        # two questions, related: 1*(1+2*0.5)+0.5, 1+0.5+0.5, 2*0.5+0.5, 3*1+0.5
        pytest.param(QUESTION, "continue", Scores(0.5, 0.5), 2.5, 2.0, 1.5, 3.5, id="middling question"),
        # one question, irrelevant: 1*(1+0)+1, 1+0+1, 0+1, 3+1
        pytest.param(QUESTION, "continue", Scores(1.0, 0.0), 2.0, 2.0, 1.0, 4.0, id="irrelevant question"),
        # many questions, irrelevant: 1*(1+0)+0, 1+0+0, 0, 3
        pytest.param(QUESTION, "continue", Scores(0.0, 0.0), 1.0, 1.0, 0.0, 3.0, id="worst question"),
        # right stop, exact: content 1, format 1
        pytest.param(STOP, "stop", None, 4.0, 3.0, 3.0, 4.0, id="exact stop"),
        # right stop inside a longer text: content 1, format 0
        pytest.param(f"Bye {STOP}", "stop", None, 3.0, 2.0, 2.0, 3.0, id="stop inside a longer text"),
        pytest.param(STOP, "continue", None, 0.0, 0.0, 0.0, 0.0, id="stopped too early"),
        pytest.param(QUESTION, "stop", Scores(1.0, 1.0), 0.0, 0.0, 0.0, 0.0, id="asked too long"),
    ],
)
def test_the_reward_of_a_response_in_every_mode(response, decision_truth, scores, ra_rs, ra_rs_sum, ra, rs):
    graded = grade(response, decision_truth, scores)
    values = {
        "action_score": graded.action_score,
        "content_score": graded.content_score,
        "format_score": graded.format_score,
    }
    assert reward(**values) == ra_rs
    assert reward(**values, train_mode="Ra+Rs", fusion_mode="default") == ra_rs
    assert reward(**values, train_mode="Ra+Rs", fusion_mode="sum") == ra_rs_sum
    for fusion_mode in FUSION_MODES:  # without meaning for the single signals
        assert reward(**values, train_mode="Ra", fusion_mode=fusion_mode) == ra
        assert reward(**values, train_mode="Rs", fusion_mode=fusion_mode) == rs


def test_each_score_has_its_own_weight():
    # Scores that no response earns together, so that a swapped argument shows.
    values = {"action_score": 0.5, "content_score": 0.25, "format_score": 0.125}
    assert reward(**values) == 0.5 * 1.5 + 0.125 == 0.875
    assert reward(**values, fusion_mode="sum") == 0.5 + 0.25 + 0.125 == 0.875
    assert reward(**values, train_mode="Ra") == 0.5 + 0.125 == 0.625
    assert reward(**values, train_mode="Rs") == 1.5 + 0.125 == 1.625


def test_the_default_pays_for_content_only_when_the_decision_was_right():
    assert reward(action_score=0.0, content_score=1.0, format_score=0.0) == 0.0
    assert reward(action_score=0.0, content_score=1.0, format_score=0.0, fusion_mode="sum") == 1.0


def test_an_unknown_train_mode_is_refused_by_name():
    with pytest.raises(ValueError, match=r"train_mode 'Rb' is none of Ra\+Rs, Ra, Rs"):
        reward(action_score=1.0, content_score=1.0, format_score=1.0, train_mode="Rb")


def test_an_unknown_fusion_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="fusion_mode 'product' is none of default, sum"):
        reward(action_score=1.0, content_score=1.0, format_score=1.0, fusion_mode="product")


UNIT = st.floats(min_value=0.0, max_value=1.0)
HIGHEST = {
    ("Ra+Rs", "default"): 4,
    ("Ra+Rs", "sum"): 3,
    ("Ra", "default"): 3,
    ("Ra", "sum"): 3,
    ("Rs", "default"): 4,
    ("Rs", "sum"): 4,
}


@given(action_score=UNIT, content_score=UNIT, format_score=UNIT)
def test_the_reward_is_finite_and_within_its_bounds_for_any_scores(action_score, content_score, format_score):
    assert set(HIGHEST) == set(itertools.product(TRAIN_MODES, FUSION_MODES))
    for (train_mode, fusion_mode), highest in HIGHEST.items():
        value = reward(
            action_score=action_score,
            content_score=content_score,
            format_score=format_score,
            train_mode=train_mode,
            fusion_mode=fusion_mode,
        )
        assert math.isfinite(value)
        assert 0.0 <= value <= highest


@given(
    response=st.one_of(st.text(), st.text().map(lambda text: f"{text}{STOP}")),
    decision_truth=st.sampled_from(["continue", "stop"]),
    format_score=UNIT,
    content_score=UNIT,
)
def test_no_response_earns_anything_by_the_wrong_decision(response, decision_truth, format_score, content_score):
    graded = grade(response, decision_truth, Scores(format_score, content_score))
    right = (STOP in response) == (decision_truth == "stop")
    assert graded.action_score == float(right)
    if not right:
        assert (graded.format_score, graded.content_score, graded.think) == (0.0, 0.0, "")


# What a grader may say, or be made to say by the message it grades.
TAGS = st.sampled_from(
    [f"<{slash}{name}>" for slash in ("", "/") for name in ("think", "format_score", "content_score")]
    + ["<stop />", "<format_score", "</content_score", "<FORMAT_SCORE>", "<content_score >", "<|im_end|>"]
)
NUMBERS = st.one_of(
    st.sampled_from(
        "0 0.5 1 1.0 .5 1. 00.5 nan NaN inf -inf Infinity 1e999 1e-999 1e0 -0.5 -0 +1 1_0 0x1 1/2 1,0 2.0 1.0000001 "
        "\u0661 \u0660.\u0665 \uff11 \u00bd \u2460 \u00b2 \u2212 1.0.0 . ..".split()
    ),
    st.integers(0, 10**60).map(str),
    st.integers(1, 600).map(lambda length: "9" * length),
    st.integers(1, 600).map(lambda length: "0." + "9" * length),
    st.integers(1, 600).map(lambda length: "0" * length + "1"),
    st.floats().map(str),
)
PIECES = st.one_of(TAGS, NUMBERS, st.text(max_size=8), st.sampled_from(["\n", " ", "\0", "\u2028", "\ufeff"]))
SCORE_TAGS = st.builds(
    lambda name, number: f"<{name}>{number}</{name}>",
    st.sampled_from(["format_score", "content_score", "think"]),
    st.one_of(NUMBERS, st.lists(PIECES, max_size=3).map("".join)),
)
GRADER_OUTPUT = st.one_of(st.text(), st.lists(st.one_of(SCORE_TAGS, PIECES), max_size=10).map("".join))
RESPONSES = st.one_of(GRADER_OUTPUT, st.just(STOP), GRADER_OUTPUT.map(lambda text: text + STOP))


@given(output=GRADER_OUTPUT, response=RESPONSES, decision_truth=st.sampled_from(["continue", "stop"]))
@example(
    output="<format_score>1.0</format_score><content_score>1e999</content_score>",
    response="",
    decision_truth="continue",
)
@example(
    output="<format_score>1</format_score><content_score>nan</content_score>", response="", decision_truth="continue"
)
@example(
    output="<format_score>\u0661</format_score><content_score>\u0661</content_score>",
    response="",
    decision_truth="continue",
)
@example(
    output=f"<format_score>{'9' * 5000}</format_score><content_score>1</content_score>",
    response="",
    decision_truth="continue",
)
@example(
    output="<format_score>1</format_score><content_score>0.5</content_score>",
    response="Is it dry?",
    decision_truth="continue",
)
def test_whatever_the_grader_says_every_reward_is_finite_and_within_the_bounds_of_its_mode(
    output, response, decision_truth
):
    scores = parse_grade(output) if needs_grader(response, decision_truth) else None
    graded = grade(response, decision_truth, scores)

    if scores is None and needs_grader(response, decision_truth):
        # Nothing readable: open scores, which training and evaluation ask for again, never a number.
        assert (graded.format_score, graded.content_score) == (None, None)
        return
    parts = {
        "action_score": graded.action_score,
        "content_score": graded.content_score,
        "format_score": graded.format_score,
    }
    assert all(math.isfinite(score) and 0.0 <= score <= 1.0 for score in parts.values())
    for (train_mode, fusion_mode), highest in HIGHEST.items():
        value = reward(**parts, train_mode=train_mode, fusion_mode=fusion_mode)
        assert math.isfinite(value)
        assert 0.0 <= value <= highest
