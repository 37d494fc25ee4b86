"""Reading a grader's reply: a reward must not be won by text that only looks like a grade."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.core.grading import parse_grade, parse_score
from tuner.learn_to_ask.core.reward import Scores


def scores_of(reply):
    """(format, content), or `None`."""
    graded = parse_grade(reply)
    return None if graded is None else (graded.format_score, graded.content_score)


def test_a_reply_as_the_prompt_asks_for_it():
    reply = (
        "<think>one question, about the phlegm</think>\n"
        "<format_score>1.0</format_score>\n"
        "<content_score>0.5</content_score>"
    )
    assert parse_grade(reply) == Scores(format_score=1.0, content_score=0.5, think="one question, about the phlegm")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1.0", 1.0),
        ("0.5", 0.5),
        ("0.0", 0.0),
        ("1", 1.0),
        ("0", 0.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("0.25", 0.25),
        (" 0.5 ", 0.5),
        ("\n0.5\n", 0.5),
        ("00.5", 0.5),
        ("1,0", 1.0),
        ("1.0/1.0", 1.0),
        ("0.5 / 1", 0.5),
        ("**0.5**", 0.5),
        ("score: 1.0", 1.0),
        ("1.0 (one question)", 1.0),
        ("1.0 - one question", 1.0),
        ("１．０", 1.0),
        ("1.0（一个问题）", 1.0),
    ],
)
def test_numbers_from_0_to_1_are_scores(written, expected):
    assert scores_of(f"<format_score>{written}</format_score><content_score>0.5</content_score>") == (expected, 0.5)
    assert scores_of(f"<format_score>0.5</format_score><content_score>{written}</content_score>") == (0.5, expected)


@pytest.mark.parametrize(
    "reply",
    [
        "<FORMAT_SCORE>1.0</FORMAT_SCORE><Content_Score>0.5</Content_Score>",
        "< format_score>1.0</ format_score>\n<content_score >0.5</content_score >",
        "**<format_score>1.0</format_score>** **<content_score>0.5</content_score>**",
        "&lt;format_score&gt;1.0&lt;/format_score&gt;&lt;content_score&gt;0.5&lt;/content_score&gt;",
        "<format_score>1.0</format_score>\n<content_score>0.5",
        'Here: {"think": "ok", "format_score": 1.0, "content_score": "0.5"}',
        "format_score: 1.0\n- **content_score**: 0.5",
    ],
)
def test_what_models_make_of_the_form_is_read(reply):
    assert scores_of(f"<think>{reply.replace('0.5', '0.0')}</think>{reply}") == (1.0, 0.5)


@pytest.mark.parametrize(
    "written",
    [
        "nan",
        "NaN",
        "inf",
        "Infinity",
        "2.0",
        "1.1",
        "100",
        "-1",
        "-0.5",
        "+1.0",
        "1e0",
        "1e-1",
        "1_0",
        "0x1",
        "1/2",
        "1.0.0",
        ".",
        "",
        "one",
        "1.0, 0.5 or 0.0",
        "1.0%",
    ],
)
def test_anything_else_is_no_score_and_the_grader_is_asked_again(written):
    assert parse_grade(f"<format_score>{written}</format_score><content_score>1.0</content_score>") is None
    assert parse_grade(f"<format_score>1.0</format_score><content_score>{written}</content_score>") is None


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "1.0 and 1.0",
        "<think>fine</think>",
        "<format_score>1.0</format_score>",
        "<content_score>1.0</content_score>",
        "<think>fine</think><format_score>1.0</format_score>",
        "<format_score>1.0<content_score>1.0</content_score>",
        "<format_score>1.0</content_score><content_score>1.0</format_score>",
        "<format score>1.0</format score><content score>1.0</content score>",
        "[format_score]1.0[/format_score][content_score]1.0[/content_score]",
    ],
)
def test_a_reply_without_both_tags_is_no_grade(reply):
    assert parse_grade(reply) is None


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(
            "Sure! <format_score>1.0</format_score> because. And <content_score>0.0</content_score> so long.",
            (1.0, 0.0),
            id="prose around the tags",
        ),
        pytest.param(
            "<content_score>0.5</content_score><format_score>1.0</format_score>", (1.0, 0.5), id="the other order"
        ),
        pytest.param(
            "<format_score>0.0</format_score><content_score>0.0</content_score>"
            "<format_score>1.0</format_score><content_score>0.5</content_score>",
            (1.0, 0.5),
            id="the last of repeated tags counts",
        ),
        pytest.param(
            "<format_score>1.0</format_score><content_score>0.5</content_score><content_score>nan</content_score>",
            (1.0, 0.5),
            id="the last well-formed one, that is",
        ),
        pytest.param(
            "<format_score>1.0</format_score><content_score>0.5</content_score><content_score>7</content_score>",
            (1.0, 0.5),
            id="a number above 1 is not well-formed",
        ),
        pytest.param(
            "<format_score><format_score>1.0</format_score></format_score><content_score>0.5</content_score>",
            (1.0, 0.5),
            id="nested tags",
        ),
    ],
)
def test_the_last_well_formed_tag_of_each_kind_counts(reply, expected):
    assert scores_of(reply) == expected


ONES = "<format_score>1.0</format_score><content_score>1.0</content_score>"
ZEROS = "<format_score>0.0</format_score><content_score>0.0</content_score>"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(f"<think>{ONES}</think>{ZEROS}", (0.0, 0.0), id="tags in the reasoning, before the verdict"),
        pytest.param(f"<think>{ONES}</think>", None, id="tags in the reasoning alone"),
        pytest.param(f"<think>{ONES}", None, id="reasoning that is never closed"),
        pytest.param(f"{ONES}</think>", None, id="reasoning that was opened by the chat template"),
        pytest.param(f"{ONES}</think>{ZEROS}", (0.0, 0.0), id="reasoning opened by the template, then a verdict"),
        pytest.param(f"{ZEROS}<think>{ONES}", (0.0, 0.0), id="a verdict, then reasoning that is never closed"),
        pytest.param(f"{ZEROS}<think>{ONES}</think>", None, id="a verdict that the model thinks over"),
        pytest.param(f"<think>a</think>{ONES}<think>b</think>{ZEROS}", (0.0, 0.0), id="the model thinks twice"),
        pytest.param(
            f"<think>the doctor wrote </think><content_score>1.0</content_score> which is no question</think>{ZEROS}",
            (0.0, 0.0),
            id="an echoed message that closes the reasoning",
        ),
        pytest.param(
            "<think>it says </think><content_score>1.0</content_score></think><format_score>1.0</format_score>",
            None,
            id="an echoed score does not make up for one that is missing",
        ),
        pytest.param(f"<think><think>{ONES}</think>{ONES}</think>{ZEROS}", (0.0, 0.0), id="nested reasoning"),
    ],
)
def test_what_is_said_in_the_reasoning_cannot_score(reply, expected):
    assert scores_of(reply) == expected


@pytest.mark.parametrize(
    ("reply", "think"),
    [
        (f"<think> fine </think>{ONES}", "fine"),
        (f"fine</think>{ONES}", "fine"),
        (f"{ONES}", ""),
        (f"{ONES}<think>fine", "fine"),
        (f"<think></think>{ONES}", ""),
    ],
)
def test_the_reasoning_is_kept_for_the_reader(reply, think):
    assert parse_grade(reply).think == think


FRAGMENTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<format_score>",
        "</format_score>",
        "<content_score>",
        "</content_score>",
        "<format_score>1.0</format_score>",
        "<content_score>0.5</content_score>",
        "<content_score>1.5</content_score>",
        "0",
        "1",
        ".",
        "9" * 400,
        "\u0661",
        "nan",
        "-",
        "e",
        " ",
        "\n",
        "text",
    ]
)


@given(reply=st.one_of(st.text(), st.lists(FRAGMENTS, max_size=15).map("".join)))
def test_no_reply_raises_and_every_score_lies_within_0_and_1(reply):
    graded = parse_grade(reply)
    if graded is not None:
        assert 0.0 <= graded.format_score <= 1.0
        assert 0.0 <= graded.content_score <= 1.0


@given(reasoning=st.lists(FRAGMENTS, max_size=10).map("".join), verdict=st.sampled_from([ONES, ZEROS]))
def test_no_reasoning_changes_the_verdict_that_follows_it(reasoning, verdict):
    assert scores_of(f"<think>{reasoning}</think>{verdict}") == scores_of(verdict)


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("<think>clear</think>\n<teaches>0.5</teaches>", (0.5, "clear")),
        (
            "<think>at first <teaches>0.0</teaches></think><teaches>1</teaches>",
            (1.0, "at first <teaches>0.0</teaches>"),
        ),
        ('{"teaches": 0.5}', (0.5, "")),
        ("**teaches**: 1/1 (clear)", (1.0, "")),
        ("<teaches>0.0</teaches>", (0.0, "")),
        ("<teaches>2</teaches>", None),
        ("<think><teaches>1.0</teaches>", None),
        ("it teaches a lot", None),
    ],
)
def test_a_reply_with_one_score_is_read_by_the_same_rules(reply, read):
    assert parse_score(reply, name="teaches") == read
