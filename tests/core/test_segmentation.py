"""Step A, the cutting: a sample wherever the doctor speaks next (spec section 3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.core.records import Sample, Session
from tuner.learn_to_ask.core.segmentation import segment, turn_indices

SPEAKERS = {"u": "user", "a": "assistant"}


def messages_of(script):
    """`"uau"` -> three messages whose contents are told apart by their position."""
    return [{"role": SPEAKERS[letter], "content": f"message {index}"} for index, letter in enumerate(script)]


def samples_of(messages, session_id="7", diagn=None):
    return list(segment(Session(session_id=session_id, diagn=diagn, messages=messages)))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param("ua", [0], id="one question"),
        pytest.param("uaua", [0, 2], id="taking turns"),
        pytest.param("uuuauua", [2, 5], id="consecutive user messages are one run"),
        pytest.param("uaaau", [0, 4], id="consecutive doctor messages make no sample of their own"),
        pytest.param("aua", [1], id="the doctor greets first"),
        pytest.param("aauuaua", [3, 5], id="two greetings, then a run"),
        pytest.param("uau", [0, 2], id="the log breaks off after the patient"),
        pytest.param("uuu", [2], id="the doctor never speaks"),
        pytest.param("u", [0], id="a single message"),
        pytest.param("aaa", [], id="the patient never speaks"),
    ],
)
def test_a_turn_ends_with_each_maximal_run_of_patient_messages(script, expected):
    assert list(turn_indices(messages_of(script))) == expected
    assert [sample.cid for sample in samples_of(messages_of(script))] == [f"7_{index}" for index in expected]


def test_cid_names_the_last_message_of_the_context():
    # Given a session whose eighth message (index 7) ends a run of patient messages
    samples = samples_of(messages_of("uuauauuuaua"), session_id=35310)
    # Then the context of the messages 0..7 is 35310_7, and the session's id is a string from here on
    sample = next(sample for sample in samples if sample.cid == "35310_7")
    assert [message["content"] for message in sample.messages] == [f"message {index}" for index in range(8)]
    assert [message["content"] for message in sample.remaining_chat] == ["message 8", "message 9", "message 10"]
    assert sample.session_id == "35310"


def test_cid_of_an_answer_to_a_greeting():
    (sample,) = samples_of(messages_of("aua"), session_id="206")
    assert sample.cid == "206_1"
    assert [message["role"] for message in sample.messages] == ["assistant", "user"]


def test_the_context_is_the_whole_dialogue_and_not_only_the_last_round():
    messages = [
        {"role": "user", "content": "Sore throat"},
        {"role": "user", "content": "since Monday"},
        {"role": "assistant", "content": "Any fever?"},
        {"role": "user", "content": "38.5"},
        {"role": "assistant", "content": "<med_search>"},
    ]
    first, second = samples_of(messages, session_id=1, diagn="Upper Respiratory Tract Infection")
    assert (first.cid, first.messages, first.remaining_chat) == ("1_1", messages[:2], messages[2:])
    assert (second.cid, second.messages, second.remaining_chat) == ("1_3", messages[:4], messages[4:])
    assert {first.diagn, second.diagn} == {"Upper Respiratory Tract Infection"}
    assert first.info_set is second.info_set is None


def test_the_search_that_ends_an_interview_is_the_future_of_the_last_sample():
    messages = [*messages_of("uau"), {"role": "assistant", "content": "<med_search>"}]
    assert samples_of(messages)[-1].remaining_chat == [{"role": "assistant", "content": "<med_search>"}]


def test_a_log_that_breaks_off_after_the_patient_has_a_last_sample_without_a_future():
    last = samples_of(messages_of("uauu"))[-1]
    assert (last.cid, last.remaining_chat) == ("7_3", [])


@pytest.mark.parametrize("diagn", [None, "Eczema", ["Eczema", "Urticaria"], {"code": 12}, 3.5])
def test_the_diagnosis_is_passed_on_as_it_stands(diagn):
    (sample,) = samples_of(messages_of("ua"), diagn=diagn)
    assert sample.diagn == diagn


@pytest.mark.parametrize(("given_id", "expected"), [(206, "206"), ("206", "206"), ("web-9_1", "web-9_1"), (0, "0")])
def test_numbers_and_strings_name_sessions(given_id, expected):
    (sample,) = samples_of(messages_of("ua"), session_id=given_id)
    assert (sample.session_id, sample.cid) == (expected, f"{expected}_0")


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=5).map("m{}".format)}
    ),
    min_size=1,
    max_size=12,
)


def count_runs_slowly(messages):
    """How often the patient has the floor: a run begins where nobody or the doctor spoke before."""
    runs = 0
    previous = None
    for message in messages:
        if message["role"] == "user" and previous != "user":
            runs += 1
        previous = message["role"]
    return runs


@given(messages=MESSAGES, session_id=st.one_of(st.integers(), st.text(max_size=4)))
def test_every_sample_is_the_session_cut_in_two_behind_a_patient_message(messages, session_id):
    samples = samples_of(messages, session_id=session_id)
    assert len(samples) == count_runs_slowly(messages)
    for sample in samples:
        assert sample.messages + sample.remaining_chat == messages
        assert sample.messages[-1]["role"] == "user"
        assert not sample.remaining_chat or sample.remaining_chat[0]["role"] == "assistant"
        assert sample.cid == f"{session_id}_{len(sample.messages) - 1}"
    lengths = [len(sample.messages) for sample in samples]
    assert lengths == sorted(set(lengths))


@given(messages=MESSAGES)
def test_samples_are_valid_records(messages):
    # Samples are built without validation, so this is the place where it happens.
    for sample in samples_of(messages):
        assert Sample.model_validate(sample.model_dump()) == sample
