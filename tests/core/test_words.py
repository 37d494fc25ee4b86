"""What a text is about: stems of telling words, fragments where there are no spaces."""

import pytest

from tuner.learn_to_ask.core.words import COMMON_WORDS, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Do you have CRAMPS?", {"cramp"}),
        ("cramping", {"cramp"}),
        ("38.5 or 4-5 times", {"38.5", "4-5", "time"}),
        ("大便像水", {"大便", "便像", "像水"}),
        ("大便什么颜色", {"大便", "便什", "么颜", "颜色"}),
        ("tell me everything", set()),
        ("", set()),
    ],
)
def test_words_are_what_a_text_is_about(text, words):
    assert words_of(text, COMMON_WORDS) == words
