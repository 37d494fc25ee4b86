"""What is masked, and what only looks like it: medical figures are left alone. No network is asked."""

import json
import socket
from collections import Counter
from pathlib import Path

import pytest
from sessions import END, session

import tuner.learn_to_ask
from tuner.learn_to_ask.data_prepare.curation.personal_data import PersonalData
from tuner.learn_to_ask.errors import UserError

SAMPLE = Path(tuner.learn_to_ask.__file__).parent / "sample_data"


@pytest.fixture(scope="module")
def personal_data():
    return PersonalData()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call (415) 555-2671 after six", "call [phone number] after six"),
        ("+44 20 7946 0958 or 13812345678", "[phone number] or [phone number]"),
        ("mail anna.k@example.org please", "mail [e-mail address] please"),
        ("My name is Anna Smith, i cough", "My name is [name], i cough"),
        ("my name is anna, i cough", "my name is [name], i cough"),
        ("Dr. Miller sent me to Mrs O'Neill", "Dr. [name] sent me to Mrs [name]"),
        ("patient name: Bob", "patient name: [name]"),
        ("我叫王小明，电话13812345678", "我叫[name]，电话[phone number]"),
        ("身份证11010519491231002X", "身份证[id]"),
        ("ssn 536-90-4399", "ssn [id]"),
        ("my passport number is E12345678", "my passport number is [id]"),
        ("mrn: AB-123456", "mrn: [id]"),
        ("病历号：A1234567", "病历号：[id]"),
        ("DE89 3704 0044 0532 0130 00", "[bank account]"),
        ("4111 1111 1111 1111", "[card number]"),
        ("NHS 943 476 5919", "NHS [id]"),  # a number of two kinds is masked once
    ],
)
def test_what_is_masked(personal_data, text, masked):
    found, kinds = personal_data.mask(text)

    assert found == masked
    assert kinds.total() == masked.count("[")


@pytest.mark.parametrize(
    "text",
    [
        "temperature 38.5 37.9 38.2 since 2024-11-03 10:30",
        "blood pressure 120/80 130/85 pulse 90 100 110",
        "took 500 mg 3 times for 2 days, 37.5 then 38.9",
        "wbc 6.5, plt 150-300, hb 120-160, 2024.11.03",
        "dr said i have a fever",
        "the medicine name: ibuprofen",
        "insurance is fine, my insurance number is unknown",
        "110105194912310021",  # its check digit is wrong
        "half @ noon",
        END,
    ],
)
def test_what_only_looks_like_it(personal_data, text):
    assert personal_data.mask(text) == (text, Counter())


def test_nothing_is_found_in_the_sample_logs(personal_data):
    lines = (SAMPLE / "test_origin.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {message["content"] for line in lines for message in json.loads(line)["messages"]}

    assert [text for text in sorted(texts) if personal_data.mask(text)[1]] == []


def test_a_session_is_masked_message_by_message_and_counted(personal_data):
    log = session("p: my name is Anna", "d: and your phone?", "p: 13812345678, or anna@example.org", f"d: {END}")

    masked, kinds = personal_data.mask_session(log)

    assert [message["content"] for message in masked.messages] == [
        "my name is [name]", "and your phone?", "[phone number], or [e-mail address]", END,
    ]  # fmt: skip
    assert kinds == {"name": 1, "phone number": 1, "e-mail address": 1}
    assert log.messages[0]["content"] == "my name is Anna"


def test_a_higher_score_leaves_what_is_less_sure():
    strict = PersonalData(score=0.5)

    assert strict.mask("call (415) 555-2671, anna@example.org")[0] == "call (415) 555-2671, [e-mail address]"


def test_no_network_is_asked_about_an_address(personal_data, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(arguments)

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert personal_data.mask("b@hospital.co.uk")[1] == {"e-mail address": 1}


def test_without_presidio_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)

    with pytest.raises(
        UserError, match=r"presidio-analyzer is not installed.*learn2ask\[curate\].*--personal_data off"
    ):
        PersonalData()


@pytest.fixture
def pipeline(tmp_path):
    """A spaCy pipeline that knows one person and one place."""
    import spacy

    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "GPE", "pattern": "London"}])
    nlp.to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_a_pipeline_finds_names_that_nothing_introduces(pipeline):
    found = PersonalData(names_model=str(pipeline))

    said = "ask Ada Lovelace in London, my name is Ada Lovelace"
    assert found.mask(said) == ("ask [name] in London, my name is [name]", {"name": 2})


def test_a_pipeline_that_is_not_there_or_knows_no_persons_is_refused(tmp_path):
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")

    with pytest.raises(UserError, match=r"--names_model nowhere: .*spacy download"):
        PersonalData(names_model="nowhere")
    with pytest.raises(UserError, match="has no label PERSON or PER"):
        PersonalData(names_model=str(tmp_path / "blank"))
