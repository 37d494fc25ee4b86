"""Which language a text is in, and when that cannot be told."""

import sys

import pytest

from tuner.learn_to_ask.data_prepare.curation.language import LanguageCheck
from tuner.learn_to_ask.errors import UserError

CHINESE, ENGLISH = "嗓子疼，发烧三天了 请问有没有咳嗽？", "i have a sore throat since when do you have it"


@pytest.fixture(scope="module")
def english():
    return LanguageCheck("en", confidence=0.9)


@pytest.mark.parametrize(
    ("text", "language"),
    [(CHINESE, "zh"), ("Halsschmerzen seit drei Tagen, haben Sie Fieber?", "de"), ("j'ai mal à la gorge", "fr")],
)
def test_another_language_is_named(english, text, language):
    assert english.finds(text).startswith(f"language {language} (")


@pytest.mark.parametrize("text", [ENGLISH, "ok", "diarrhea", ""])
def test_the_wanted_language_and_what_is_too_short_to_tell_stay(english, text):
    assert english.finds(text) == ""


def test_the_language_is_a_choice():
    chinese = LanguageCheck("zh", confidence=0.9)

    assert chinese.finds(CHINESE) == ""
    assert chinese.finds(ENGLISH) == "language en (100% sure)"


def test_a_language_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(UserError, match=r"--language english: not known; pass any or one of: af .* en .* zh"):
        LanguageCheck("english", confidence=0.9)


def test_without_py3langid_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)

    with pytest.raises(UserError, match=r"py3langid is not installed.*learn2ask\[curate\].*--language any"):
        LanguageCheck("en", confidence=0.9)
