"""The domain files that are shipped: their vocabularies are such that rules can read and grade what is made of them."""

import itertools

import pytest
import yaml

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.domains import FOLDER, load_domain, shipped
from tuner.learn_to_ask.engines.question_rules import asks, count_questions
from tuner.learn_to_ask.sample_data.vocabulary import vocabulary_of

STARTER = (FOLDER / "starter.txt").read_text(encoding="utf-8")

each_domain = pytest.mark.parametrize("name", shipped())


def attributes_of(name):
    return [attribute for each in vocabulary_of(load_domain(name)).complaints for attribute in each.attributes]


def items_of(name):
    return [(each.field, term) for each in attributes_of(name) for term in each.answers.values()]


def phrases_of(name):
    return [phrase for each in attributes_of(name) for phrase in each.answers]


@each_domain
def test_every_field_of_a_vocabulary_is_one_of_its_domain(name):
    fields = {each.name for each in load_domain(name).information.fields}

    assert {each.field for each in attributes_of(name)} == fields


@each_domain
def test_an_item_stands_for_one_answer_of_one_attribute(name):
    items = items_of(name)

    assert len(set(items)) == len(items)


@each_domain
def test_terms_say_something_and_survive_being_joined_and_split(name):
    information = load_domain(name).information

    for _, term in items_of(name):
        assert not information.is_vague(term)
        assert not set(term) & set(",，、:：")


@each_domain
def test_no_answer_is_found_in_another_answer_or_in_talk(name):
    # Openings stand in the context, where nothing is extracted.
    vocabulary = vocabulary_of(load_domain(name))
    talk = [*vocabulary.closing_answers, *vocabulary.unasked_closings, *vocabulary.off_topic, *vocabulary.user_chat]
    phrases = phrases_of(name)

    found = [(one, other) for one, other in itertools.permutations(phrases, 2) if one in other.lower()]
    found += [(phrase, text) for phrase, text in itertools.product(phrases, talk) if phrase in text.lower()]
    assert found == []
    assert [phrase for phrase in phrases if phrase != " ".join(phrase.lower().split())] == []


@each_domain
def test_every_question_is_built_as_one_question(name):
    domain = load_domain(name)
    mark = "？" if domain.full_width else "?"

    for attribute in attributes_of(name):
        question = f"{attribute.question}{mark}"
        assert (asks(question), count_questions(question)) == (True, 1), question
    assert count_questions(domain.fill(domain.policy.example)) == 1


@each_domain
def test_complaints_their_openings_and_their_questions_are_told_apart(name):
    complaints = vocabulary_of(load_domain(name)).complaints
    names = [each.name for each in complaints]
    openings = [opening for each in complaints for opening in each.openings]

    assert len(set(names)) == len(names)
    assert len(set(openings)) == len(openings)
    for each in complaints:
        assert len({attribute.question for attribute in each.attributes}) == len(each.attributes)


@each_domain
def test_a_domain_of_full_width_language_has_common_words_of_two_characters(name):
    domain = load_domain(name)
    words = vocabulary_of(domain).common_words.split()

    assert words
    assert not domain.full_width or {len(word) for word in words} == {2}


def test_the_starter_is_a_domain_once_it_has_a_name(tmp_path):
    file = tmp_path / "bicycles.yaml"
    file.write_text(STARTER.replace("NAME", "bicycles"), encoding="utf-8")

    domain = load_domain(str(file))

    assert domain.name == "bicycles"
    assert domain.vocabulary is None


def test_the_starter_takes_a_name_that_yaml_reads_as_something_else(tmp_path):
    file = tmp_path / "2026.yaml"
    file.write_text(STARTER.replace("NAME", "2026"), encoding="utf-8")

    assert load_domain(str(file)).name == "2026"


def test_the_starter_has_every_key_but_the_vocabulary_which_it_mentions():
    assert yaml.safe_load(STARTER).keys() == Domain.model_fields.keys() - {"vocabulary"}
    assert "`vocabulary`" in STARTER


def test_a_comment_stands_above_every_key_of_the_starter():
    seen, above = set(), ""
    for line in STARTER.splitlines():
        key, colon, _ = line.strip().removeprefix("- ").partition(":")
        if colon and key.isidentifier() and key not in seen:
            seen.add(key)
            assert above.strip().startswith("#"), line
        above = line
    assert seen >= Domain.model_fields.keys() - {"vocabulary"}
