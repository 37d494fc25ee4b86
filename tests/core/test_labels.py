"""Step B, the labels: what was still to learn, and whether it was time to stop (spec section 4)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medical import parse_info_set

from tuner.learn_to_ask.core.labels import decision_truth, info_truth, items_of_truth, to_task
from tuner.learn_to_ask.core.records import Sample

INFO_FIELDS = {"symptom", "nature", "quality", "location", "severity", "trigger"}
DOCTOR = {"role": "assistant", "content": "Any fever?"}
PATIENT = {"role": "user", "content": "38.5"}
SEARCH = {"role": "assistant", "content": "<med_search>"}


def sample(future, info_set):
    return Sample(
        cid="35310_0",
        session_id=35310,
        diagn="Influenza",
        messages=[{"role": "user", "content": "I feel ill"}],
        remaining_chat=future,
        info_set=info_set,
    )


@pytest.mark.parametrize(
    ("future", "expected"),
    [
        pytest.param([], "stop", id="the log ends here"),
        pytest.param([SEARCH], "stop", id="the doctor ends the interview"),
        pytest.param([DOCTOR, SEARCH], "stop", id="a question that nobody answers"),
        pytest.param([DOCTOR, PATIENT, SEARCH], "continue", id="a question and its answer"),
        pytest.param([SEARCH, PATIENT], "continue", id="the patient goes on after the search"),
    ],
)
def test_the_decision_is_stop_when_the_patient_says_nothing_more(future, expected):
    assert decision_truth(future) == expected


@pytest.mark.parametrize(
    ("info_set", "expected"),
    [
        (None, ""),
        ([], ""),
        (["symptom: fever"], "symptom: fever"),
        (
            ["symptom: diarrhea", "symptom nature: watery stool", "symptom severity: 4-5 times per day"],
            "symptom: diarrhea, symptom nature: watery stool, symptom severity: 4-5 times per day",
        ),
    ],
)
def test_the_information_is_the_items_joined_by_comma_and_space(info_set, expected):
    assert info_truth(info_set) == expected


def test_a_sample_to_continue_from_becomes_a_task_with_its_information():
    task = to_task(sample([DOCTOR, PATIENT, SEARCH], ["symptom: fever", "symptom severity: 38.5"]))
    assert task.model_dump() == {
        "cid": "35310_0",
        "session_id": "35310",
        "diagn": "Influenza",
        "messages": [{"role": "user", "content": "I feel ill"}],
        "decision_truth": "continue",
        "info_truth": "symptom: fever, symptom severity: 38.5",
    }


@pytest.mark.parametrize("info_set", [[], None], ids=["nothing to learn", "extraction failed"])
def test_a_sample_to_continue_from_without_information_is_dropped(info_set):
    assert to_task(sample([DOCTOR, PATIENT], info_set)) is None


@pytest.mark.parametrize(
    ("info_set", "expected"), [([], ""), (None, ""), (["symptom: fever"], "symptom: fever")], ids=str
)
def test_a_sample_to_stop_at_is_kept_whatever_is_known(info_set, expected):
    task = to_task(sample([SEARCH], info_set))
    assert (task.decision_truth, task.info_truth) == ("stop", expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param('["symptom: dry cough"]', ["symptom: dry cough"], id="the list alone"),
        pytest.param("[]", [], id="an empty list is an answer"),
        pytest.param(' \n["symptom: dry cough"]\n ', ["symptom: dry cough"], id="white space"),
        pytest.param('```json\n["symptom: dry cough"]\n```', ["symptom: dry cough"], id="a code fence"),
        pytest.param('Here you are: ["symptom: rash"] Anything else?', ["symptom: rash"], id="prose around it"),
        pytest.param('As asked [1]: ["symptom: rash"]', ["symptom: rash"], id="a footnote is no list of strings"),
        pytest.param('Fields [symptom, trigger]: ["symptom: rash"]', ["symptom: rash"], id="prose in brackets"),
        pytest.param(
            '["symptom: rash", ["symptom: itch"]', ["symptom: rash", "symptom: itch"], id="a list that never ends"
        ),
        pytest.param('[["symptom: rash"]]', ["symptom: rash"], id="a list in a list"),
        pytest.param('{"info_set": ["symptom: rash"]}', ["symptom: rash"], id="a list in an object"),
        pytest.param('["symptom: pain [left side]"]', ["symptom: pain [left side]"], id="brackets inside an item"),
        pytest.param(
            '<think>maybe ["symptom: guess"]</think>["symptom: rash"]',
            ["symptom: rash"],
            id="a list inside the reasoning does not count",
        ),
        pytest.param('<think>["symptom: guess"]', None, id="reasoning that never ends"),
        pytest.param("", None, id="nothing"),
        pytest.param("The patient has a rash.", None, id="prose alone"),
        pytest.param('"symptom: rash"', None, id="a string"),
        pytest.param('{"symptom": "rash"}', ["symptom: rash"], id="an object"),
        pytest.param("42", None, id="a number"),
        pytest.param("[1, 2, 3]", None, id="numbers"),
        pytest.param('["symptom: rash", 3]', None, id="a number among strings"),
        pytest.param('["symptom: rash", null]', None, id="null among strings"),
        pytest.param('["rash"]', None, id="an item without a field"),
        pytest.param('["symptom: rash", "no trigger"]', ["symptom: rash"], id="a remark among items"),
        pytest.param(
            """['symptom: rash', "symptom trigger: mother's soap"]""",
            ["symptom: rash", "symptom trigger: mother's soap"],
            id="Python's quotes",
        ),
        pytest.param('["symptom: rash"', ["symptom: rash"], id="cut off behind an item"),
        pytest.param('["symptom: rash", "symptom trig', ["symptom: rash"], id="cut off within an item"),
        pytest.param('[] or rather ["symptom: rash"] but not []', ["symptom: rash"], id="the last that is not empty"),
        pytest.param('["symptom: rash"] better: ["symptom: itch"]', ["symptom: itch"], id="the last of two"),
        pytest.param('["symptom: rash",]', ["symptom: rash"], id="a comma too many"),
        pytest.param("[“symptom: rash”，]", ["symptom: rash"], id="curly quotes"),
        pytest.param('["symptom：rash"]', ["symptom: rash"], id="a full-width colon"),
        pytest.param('[{"field": "symptom", "value": "rash"}]', ["symptom: rash"], id="field and value"),
        pytest.param('[{"symptom": ["rash", "itch"]}]', ["symptom: rash", "symptom: itch"], id="an object of lists"),
        pytest.param(
            "1. symptom: rash\n2) **symptom trigger**: soap", ["symptom: rash", "symptom trigger: soap"], id="numbered"
        ),
        pytest.param("- 症状：皮疹\n- 症状诱因：未知", ["symptom: 皮疹"], id="Chinese lines"),
        pytest.param(
            '["症状严重程度: 39度", "symptom_nature: dry"]',
            ["symptom severity: 39度", "symptom_nature: dry"],
            id="other names",
        ),
    ],
)
def test_the_last_list_outside_the_reasoning_is_read_in_any_form(answer, expected):
    assert parse_info_set(answer) == expected


@pytest.mark.parametrize(
    "item",
    [
        "symptom: rash",
        "Symptom: rash",
        "symptom nature: dry",
        "symptom quality: dry",
        "symptom location: left knee",
        "symptom severity: 4-5 times per day",
        "symptom trigger: after meals",
        "location: left knee",
        "Severity: mild",
    ],
)
def test_every_clinical_attribute_is_kept(item):
    assert parse_info_set(json.dumps([item])) == [item]


@pytest.mark.parametrize(
    "item",
    [
        "medication: ibuprofen",
        "allergy: penicillin",
        "chronic condition: hypertension",
        "duration: 3 days",
        "age: 34",
        "symptoms and signs: rash",
        ": rash",
        "symptom location of pain: knee",
    ],
)
def test_a_field_that_nobody_asked_for_is_dropped(item):
    assert parse_info_set(json.dumps(["symptom: itch", item])) == ["symptom: itch"]


@pytest.mark.parametrize(
    "value",
    ["unknown", "Unknown", "UNKNOWN.", " unclear ", "not sure", "unsure", "none", "N/A", "null", "not mentioned", ""],
)
def test_a_vague_value_is_dropped(value):
    assert parse_info_set(json.dumps([f"symptom location: {value}", "symptom: itch"])) == ["symptom: itch"]


def test_a_value_that_only_contains_a_vague_word_is_kept():
    assert parse_info_set('["symptom trigger: unknown food"]') == ["symptom trigger: unknown food"]


def test_the_first_of_equal_items_is_kept_in_its_place():
    answer = '["symptom: Fever", "symptom: cough", "symptom: fever", " symptom: cough "]'
    assert parse_info_set(answer) == ["symptom: Fever", "symptom: cough"]


def test_white_space_around_field_and_value_is_dropped():
    assert parse_info_set('["  symptom nature :  dry  "]') == ["symptom nature: dry"]


def test_a_value_may_hold_colons_and_commas():
    items = ["symptom trigger: at 22:30, after food"]
    assert parse_info_set(json.dumps(items)) == items


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[" * 2000, None),
        ("[" * 2000 + "]" * 2000, []),
        ("[" * 2000 + '"symptom: rash"' + "]" * 2000, ["symptom: rash"]),
    ],
    ids=["never closed", "empty", "around an item"],
)
def test_deep_nesting_is_no_way_to_crash_the_parser(answer, expected):
    assert parse_info_set(answer) == expected


FRAGMENTS = st.sampled_from(
    ["[", "]", '"', ",", ":", "symptom: rash", '["symptom: rash"]', "<think>", "</think>", "```json\n", "{", "}", "\\u"]
)


@given(answer=st.one_of(st.text(), st.lists(FRAGMENTS, max_size=12).map("".join)))
def test_whatever_the_answer_only_clinical_attributes_come_out(answer):
    items = parse_info_set(answer)
    assert items is None or isinstance(items, list)
    for item in items or []:
        field, colon, value = item.partition(": ")
        assert colon and value.strip()
        assert field.lower().removeprefix("symptom ") in INFO_FIELDS


@given(values=st.lists(st.text(alphabet="abcdefgh ", min_size=1).map(lambda text: f"x{text.strip()}"), unique=True))
def test_a_well_formed_answer_comes_back_as_it_is(values):
    items = [f"symptom: {value}" for value in values]
    assert parse_info_set(json.dumps(items)) == items


WORDS = st.text("abc ,-39咳嗽", min_size=1).map(str.strip).filter(lambda text: text.strip(" ,"))


@given(st.lists(st.tuples(st.sampled_from(["symptom", "symptom nature", "症状"]), WORDS).map(": ".join)))
def test_the_reference_information_is_split_into_the_items_it_was_joined_from(items):
    assert items_of_truth(info_truth(items)) == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("symptom: red, itchy eye, severity: 4-5 times", ["symptom: red, itchy eye", "severity: 4-5 times"]),
        ("cough, fever", ["cough, fever"]),
        (" ", []),
    ],
)
def test_reference_information_in_odd_forms_is_split_at_its_fields(text, items):
    assert items_of_truth(text) == items
