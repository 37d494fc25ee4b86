"""Every rule with a session that it keeps and one that it drops; healthy logs stay whole."""

import json
from pathlib import Path

import pytest
from sessions import END, healthy, session

import tuner.learn_to_ask
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.data_prepare.curation.facts import facts_of
from tuner.learn_to_ask.data_prepare.curation.rules import RULES, Finding, first_finding

DEFAULTS = {rule.key: rule.default for rule in RULES}
SAMPLE = Path(tuner.learn_to_ask.__file__).parent / "sample_data"
EIGHT = [
    "p: a cough",
    "d: since when?",
    "p: two days",
    "d: is it dry?",
    "p: yes",
    "d: any fever?",
    "p: no",
    f"d: {END}",
]

# Rule, its threshold, what it keeps, what it drops, what it says of that.
CASES = [
    ("no_patient", 1, ["p: hi", f"d: {END}"], ["d: hello", f"d: {END}"], "0 messages of the patient"),
    ("too_short", 3, ["p: hi", "p: a cough", f"d: {END}"], ["p: hi", f"d: {END}"], "2 messages"),
    ("too_long", 8, EIGHT, ["p: hello", *EIGHT], "9 messages"),
    ("too_many_characters", 7, ["p: a cough", f"d: {END}"], ["p: a cough!", f"d: {END}"], "8 characters"),
    ("one_sided", 0.5, ["p: hi", f"d: {END}"], ["p: hi", "p: a cough", f"d: {END}"],
     "2 messages of the patient, 1 of the doctor"),
    ("broken_off", 0, EIGHT, EIGHT[:-1], "the doctor never ends the interview"),
    ("goes_on", 1, [*EIGHT, "p: thanks"], [*EIGHT, "p: thanks", "d: bye"], "2 messages after the doctor's end"),
    ("repetitive", 0.5, ["p: help", "p: help", f"d: {END}"], ["p: help", "p: Help ", "p: help", f"d: {END}"],
     "67% of the messages said before"),
    ("no_language", 0.5, ["p: ab12", f"d: {END}"], ["p: ab123", f"d: {END}"], "40% letters"),
    ("spam", 1, ["p: see www.x.example", f"d: {END}"], ["p: see www.x.example", "p: click here", f"d: {END}"],
     "2 web addresses or phrases of advertising"),
    ("few_questions", 1, ["p: hi", "d: since when?", f"d: {END}"], ["p: hi", f"d: {END}"], "0 questions of the doctor"),
    ("many_questions", 1.5, EIGHT, ["p: hi", "d: since when?", "d: is it dry?", "p: no", f"d: {END}"],
     "2.0 questions in a turn of the doctor"),
    ("unanswered", 0.5, ["p: hi", "d: since when?", "p: today", "d: any fever?", f"d: {END}"],
     ["p: hi", "d: since when?", "p: today", "d: any fever?", "d: any pain?", f"d: {END}"],
     "1 of 3 questions answered"),
]  # fmt: skip


def finding(lines, thresholds):
    return first_finding(facts_of(session(*lines), end_marker=END), thresholds)


def test_every_rule_has_its_case():
    assert [case[0] for case in CASES] == [rule.key for rule in RULES]


@pytest.mark.parametrize(("key", "threshold", "kept", "dropped", "said"), CASES, ids=[case[0] for case in CASES])
def test_what_a_rule_keeps_and_what_it_drops(key, threshold, kept, dropped, said):
    assert finding(kept, {key: threshold}) is None
    assert finding(dropped, {key: threshold}) == Finding(key, said)
    assert finding(dropped, {}) is None  # switched off


def test_the_first_rule_that_finds_something_is_named():
    assert finding(["d: hello"], DEFAULTS).rule == "no_patient"
    assert finding(["d: hello"], {key: DEFAULTS[key] for key in DEFAULTS if key != "no_patient"}).rule == "too_short"


def test_a_doctor_who_ends_at_once_teaches_to_stop():
    assert finding(["p: a cough", "p: no allergies, what should i take", f"d: {END}"], DEFAULTS) is None


@pytest.mark.parametrize("split", ["train", "test"])
def test_nothing_of_the_sample_logs_is_dropped(split):
    lines = (SAMPLE / f"{split}_origin.jsonl").read_text(encoding="utf-8").splitlines()
    sessions = [Session.model_validate(json.loads(line)) for line in lines]

    found = [first_finding(facts_of(one, end_marker=END), DEFAULTS) for one in sessions]

    assert found == [None] * len(sessions)
    assert first_finding(facts_of(healthy(), end_marker=END), DEFAULTS) is None
