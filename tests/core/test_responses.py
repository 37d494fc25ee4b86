"""Freeing a response from reasoning and special tokens, alike in training and evaluation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.core.responses import cut_at_special_token, strip_reasoning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("<think>hm</think><stop />", "<stop />", id="reasoning, then the answer"),
        pytest.param("<think>\nhm\n</think>\n\n<stop />", "<stop />", id="the line breaks after it go, too"),
        pytest.param("<think></think>Any fever?", "Any fever?", id="empty reasoning"),
        pytest.param("<think>shall I <stop />? no</think>Any fever?", "Any fever?", id="a stop inside it is none"),
        pytest.param("<think>shall I <stop />", "", id="reasoning that was cut off"),
        pytest.param("Any <think>hm</think>fever?", "Any fever?", id="reasoning in the middle"),
        pytest.param("<think>a</think>Any <think>b</think>fever?", "Any fever?", id="reasoning twice"),
        pytest.param("<think>a</think>Any fever?<think>b", "Any fever?", id="the second one cut off"),
    ],
)
def test_what_a_thinking_model_says_besides_its_reasoning(text, expected):
    assert strip_reasoning(text) == expected


@pytest.mark.parametrize("text", ["<stop />", " <stop />\n", "", "  ", "Any fever?\n"])
def test_a_text_without_reasoning_comes_back_as_it_is(text):
    assert strip_reasoning(text) == text


@given(text=st.text().filter(lambda text: "<think>" not in text and "</think>" not in text))
def test_any_text_without_reasoning_comes_back_as_it_is(text):
    assert strip_reasoning(text) == text


def test_reasoning_whose_opening_tag_stood_in_the_prompt_is_stripped():
    # Chat templates of several thinking models end with "<think>\n", so that only the end arrives; the
    # grader's reply is read the same way.
    assert strip_reasoning("shall I <stop />? not yet\n</think>\n\nAny fever?") == "Any fever?"


TOKENS = ("<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<stop /><|im_end|>", "<stop />"),
        ("<stop /><|endoftext|>", "<stop />"),
        ("Any fever?<|im_end|><|endoftext|>", "Any fever?"),
        ("Any fever?<|endoftext|>Any rash?<|im_end|>", "Any fever?"),
        ("<|im_end|><stop />", ""),
        ("Any fever?<|im_end|>\n<|im_end|>", "Any fever?"),
        ("<stop />", "<stop />"),
        (" white space stays \n", " white space stays \n"),
        ("<|im_end|", "<|im_end|"),
        ("", ""),
    ],
)
def test_a_response_ends_at_its_first_special_token(text, expected):
    assert cut_at_special_token(text, TOKENS) == expected
    assert cut_at_special_token(text, reversed(TOKENS)) == expected


def test_without_special_tokens_nothing_is_cut():
    assert cut_at_special_token("<stop /><|im_end|>", ()) == "<stop /><|im_end|>"


@given(text=st.text(), tail=st.text(), token=st.sampled_from(TOKENS))
def test_no_special_token_is_left(text, tail, token):
    assert cut_at_special_token(f"{text}{token}{tail}", TOKENS) == text.partition(token)[0]
