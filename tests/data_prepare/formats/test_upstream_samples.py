"""The published files: there and back without a difference, and cut as their splitter cuts."""

import json
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from run_scripts import CONVERT, SAMPLE, build, read, run, write

from tuner.learn_to_ask.core.records import Sample, Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, PassedOver, Refused, Row
from tuner.learn_to_ask.data_prepare.formats.upstream_samples import from_processed, parse_chat, to_processed
from tuner.learn_to_ask.jsonl import LineError

texts = st.text(st.sampled_from("ab \n:é\u2028\r") | st.characters(codec="utf-8"), min_size=1, max_size=12)
messages = st.lists(
    st.builds(
        lambda role, text, tail: {"role": role, "content": text + tail},
        st.sampled_from(["user", "assistant"]),
        texts.filter(str.strip),
        st.sampled_from(["", "", "\nuser: x", " user: x", "\nassistant:"]),
    ),
    min_size=1,
    max_size=9,
)


def rows_of(lines):
    return [Row(f"in.jsonl:{number}", f"in-{number}", line) for number, line in enumerate(lines, start=1)]


def outcomes(lines):
    return list(from_processed(rows_of(lines), Roles()))


@given(messages)
def test_sessions_go_there_and_back_without_a_difference(dialogue):
    session = Session(session_id="s_1", diagn={"code": 7}, messages=dialogue)
    samples = [sample.model_copy(update={"info_set": ["symptom: fever"]}) for sample in segment(session)]
    assume(samples)
    try:
        lines = [json.loads(json.dumps(to_processed(sample))) for sample in samples]
    except LineError:
        # Only where some text could be taken for a message, at the start of a line or by the search for `user: `
        assert any("user: " in text or "\nassistant:" in text or "\nuser:" in text for text in contents(dialogue))
        return

    back = outcomes(lines)

    assert [outcome.record for outcome in back] == samples
    assert not [note for outcome in back for note in outcome.notes]
    first = back[0].record
    assert first.messages + first.remaining_chat == session.messages


def contents(dialogue):
    return [message["content"] for message in dialogue]


@given(messages)
def test_the_published_step_b_labels_what_goes_there_as_ours_does(dialogue):
    session = Session(session_id="s", messages=dialogue)
    for sample in segment(session):
        try:
            line = to_processed(sample)
        except LineError:
            continue
        published = "continue" if "user: " in line["remaining_chat"] else "stop"
        assert (published == "continue") == any(message["role"] == "user" for message in sample.remaining_chat)


def published_lines(session, *, whole):
    """What the published step A writes: a line wherever the patient stops speaking, and one for the doctor's end."""
    said = session["messages"]
    roles = [message["role"] for message in said] + ["assistant"]
    cuts = [place for place in range(1, len(said) + 1) if roles[place - 1 : place + 1] == ["user", "assistant"]]
    cuts += [len(said)] * (said[-1]["role"] == "assistant")
    return [
        {
            "cid": f"{session['session_id']}_{number}",
            "session_id": session["session_id"],
            "diagn": "Flu",
            "messages": said[0 if whole else before : cut],
            "remaining_chat": "\n".join(f"{message['role']}: {message['content']}" for message in said[cut:]),
            "info_set": [],
        }
        for number, (before, cut) in enumerate(pairwise([0, *cuts]), start=1)
    ]


plain = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "assistant"]),
        st.text("ab\nc", min_size=1, max_size=6).filter(str.strip),
    ),
    min_size=1,
    max_size=12,
)


@given(plain, st.booleans())
def test_what_the_published_splitter_cuts_becomes_our_samples(dialogue, whole):
    # Whether its contexts are whole or hold the last round only, which is how one published version writes them
    session = Session(session_id=5, diagn="Flu", messages=dialogue)
    ours = [sample.model_copy(update={"info_set": []}) for sample in segment(session)]

    came = outcomes(published_lines({"session_id": 5, "messages": dialogue}, whole=whole))

    assert not [outcome for outcome in came if isinstance(outcome, Refused)]
    assert [outcome.record for outcome in came if isinstance(outcome, Converted)] == ours
    assert sum(isinstance(outcome, PassedOver) for outcome in came) == (dialogue[-1]["role"] == "assistant")


def test_a_round_whose_earlier_rounds_are_missing_is_refused():
    dialogue = [{"role": role, "content": "hm"} for role in ("user", "assistant", "user", "assistant", "user")]
    lines = published_lines({"session_id": 5, "messages": dialogue}, whole=False)
    kept, refused = outcomes([lines[0], lines[2]])
    assert kept.record.cid == "5_0"
    assert (refused.place, refused.kind) == ("in.jsonl:2", "incomplete context")
    (alone,) = outcomes([lines[1]])
    assert alone.kind == "incomplete context"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"remaining_chat": []}, "remaining_chat is no text"),
        ({"remaining_chat": "hello"}, "bad remaining_chat"),
        ({"cid": "x"}, "bad cid"),
        ({"session_id": None}, "bad session_id"),
        ({"info_set": [7]}, "bad info_set"),
        ({"messages": [{"role": "nurse", "content": "hm"}]}, "unknown role"),
    ],
)
def test_a_damaged_line_is_refused(change, kind):
    (outcome,) = outcomes([{**SAMPLE, "remaining_chat": "user: yes", **change}])
    assert outcome.kind == kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", []),
        ("user: ", [("user", "")]),
        ("user:", [("user", "")]),
        ("user: a\n\nb\nassistant: c: d", [("user", "a\n\nb"), ("assistant", "c: d")]),
        ("user: User: a\nUSER: b", [("user", "User: a\nUSER: b")]),
        ("user: a\nuser:b", [("user", "a\nuser:b")]),
    ],
)
def test_a_future_is_read_line_by_line(text, said):
    assert [(message["role"], message["content"]) for message in parse_chat(text)] == said


def test_the_published_step_b_gets_an_empty_list_where_extraction_failed():
    assert to_processed(Sample(**{**SAMPLE, "info_set": None}))["info_set"] == []


def test_script_2_takes_what_was_converted(tmp_path):
    write(tmp_path / "ours.jsonl", SAMPLE)
    assert run(tmp_path, CONVERT, "--to", "upstream", "ours.jsonl", "theirs.jsonl").returncode == 0
    assert run(tmp_path, CONVERT, "--from", "upstream_processed", "theirs.jsonl", "in.jsonl").returncode == 0
    assert read(tmp_path / "in.jsonl") == [SAMPLE]
    assert build(tmp_path).returncode == 0
