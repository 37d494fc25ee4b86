"""When rollouts stop, which fields they ask for, the best of several, and a reference among evaluations."""

import json
import random

import pytest
from evaluations import (
    ASKED,
    GOOD,
    HAND_CHECKED,
    RIGHT_STOP,
    STOP,
    STOPPED,
    UNGRADED,
    WRONG,
    asks,
    evaluation,
    grade,
    record,
    write,
)

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.stop_timing import STOP_METRICS
from tuner.learn_to_ask.report.analysis import analyse
from tuner.learn_to_ask.report.markdown import to_markdown
from tuner.learn_to_ask.report.rollout_analysis import REST, TOP_FIELDS
from tuner.learn_to_ask.report.write import write_report


def summary(records):
    [found] = analyse([evaluation(records)]).evaluations
    return found


def means(estimates):
    return {key: estimate.value for key, estimate in estimates.items()}


def fields(found):
    return {group.label: (group.samples, group.items, group.asked.value) for group in found.coverage.fields}


# When it stops


def test_the_hand_checked_evaluation_stops_this_many_turns_early():
    found = summary(HAND_CHECKED).stop_timing

    # Stops where asking was right: 1_2 once, 1 turn early (turns 2 and 3); 3_0 twice, 1 turn; 6_0 once, end unknown.
    # In time: 1_4 twice, 2_2 once, 4_3 twice, 5_4 once. Asked where the log stops: 2_2, 5_4 once each, 3_2 twice.
    assert (found.early, found.end_unknown, found.late) == ({0: 6, 1: 3}, 1, 4)
    assert means(found.metrics) == pytest.approx({"turns_too_early": 1.0, "turns_early": 3 / 9, "late": 4 / 10})
    assert list(found.metrics) == list(STOP_METRICS)


def test_stops_two_and_three_turns_early_by_hand():
    records = [
        record("1_0", "continue", STOPPED, asks(1.0, 1.0)),  # three turns before the end
        record("1_4", "continue", STOPPED, STOPPED),  # one turn; 1_2 was dropped
        record("1_6", "stop", RIGHT_STOP, ASKED),
        record("2_0", "continue", STOPPED, STOPPED),  # two turns
        record("2_4", "stop", RIGHT_STOP, RIGHT_STOP),
    ]
    found = summary(records).stop_timing

    assert found.early == {0: 3, 1: 2, 2: 2, 3: 1}
    assert means(found.metrics) == pytest.approx({
        "turns_too_early": (3 + 2 + 4) / 5, "turns_early": 9 / 8, "late": 1 / 4,
    })  # fmt: skip
    assert found.metrics["turns_early"].sessions == 2
    text = to_markdown(analyse([evaluation(records)]))
    assert "| 8 | 3 (37.5%) | 2 (25.0%) | 2 (25.0%) | 1 (12.5%) | 0 (0.0%) |" in text


def test_a_file_without_any_end_says_so():
    found = summary([record("1_0", "continue", STOPPED, asks(1.0, 1.0)), record("2_0", "continue", STOPPED)])

    assert means(found.stop_timing.metrics) == dict.fromkeys(STOP_METRICS)
    assert (found.stop_timing.early, found.stop_timing.end_unknown) == ({}, 2)


# Asked for, by field


def test_coverage_by_field_by_hand():
    two = "symptom: dry cough, symptom: fever, symptom severity: 39 degrees"
    records = [
        # one of two symptoms; the severity; a stop asks for nothing
        record("1_0", "continue", asks(1.0, 1.0, "Is the cough dry?"), asks(1.0, 1.0, "How many degrees?"),
               STOPPED, info_truth=two),
        # full content, but no word of the item; and a question about nothing in the log
        record("2_0", "continue", asks(1.0, 1.0, "How high is it?"), asks(0.0, 1.0, "Do you smoke?"),
               info_truth="symptom severity: 39 degrees"),
        record("2_2", "stop", RIGHT_STOP, info_truth="symptom: fever"),  # nothing is to be asked for here
    ]  # fmt: skip
    found = summary(records)

    assert fields(found) == {
        "symptom severity": (2, 2, pytest.approx((0 + 1 + 0 + 0 + 0) / 5)),
        "symptom": (1, 2, pytest.approx((0.5 + 0 + 0) / 3)),
    }
    assert (found.coverage.full_content, found.coverage.full_content_unmatched) == (3, 1)
    assert [group.asked.sessions for group in found.coverage.fields] == [1, 2]  # as many items each, so by name
    assert "find no item in: base 1 (33.3%)." in to_markdown(analyse([evaluation(records)]))


def test_it_needs_no_grader():
    found = summary([record("1_0", "continue", ("Do you cough?", UNGRADED[1]), UNGRADED)])

    assert fields(found) == {"symptom": (1, 1, 0.5)}
    assert found.coverage.full_content == 0


SAID = ["i feel ill", "how high did your temperature get?", "up to 39 degrees", "any cough?", "a dry one"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_what_the_later_samples_of_a_session_hold_tells_what_a_question_is_about(tmp_path, order):
    said = [{"role": "assistant" if turn % 2 else "user", "content": text} for turn, text in enumerate(SAID)]
    info = "symptom severity: 39 degrees, symptom: dry cough"
    question = asks(1.0, 1.0, "What is your temperature?")
    records = [
        record("1_0", "continue", question, question, messages=said[:1], info_truth=info),
        record("1_2", "continue", question, messages=said[:3], info_truth="symptom: dry cough"),
        record("1_4", "stop", RIGHT_STOP, messages=said),
    ]
    cut = record("2_0", "continue", question, messages=said[:1], info_truth=info)
    paths = files(tmp_path, base=[*(records[place] for place in order), cut])

    [found] = write_report(paths, names=["base"], output_dir=tmp_path).evaluations

    # Both rollouts of 1_0 ask for the severity; of 2_0 nobody knows what was said, and 1_2 is about something else.
    assert fields(found) == {"symptom severity": (2, 2, pytest.approx(2 / 3)), "symptom": (3, 3, 0.0)}
    assert (found.coverage.full_content, found.coverage.full_content_unmatched) == (4, 2)


@pytest.mark.parametrize(("name", "share"), [("medical_en", 1.0), ("of my own", 0.0)])
def test_a_domain_that_comes_with_the_package_says_what_is_no_information(tmp_path, name, share):
    texts = ["i feel ill", "any drug allergies?", "no allergies", "how strong is it at its peak?", "so so, in between"]
    said = [{"role": "assistant" if turn % 2 else "user", "content": text} for turn, text in enumerate(texts)]
    domain = {"name": name, "stop_token": STOP, "user": "patient", "assistant": "doctor"}
    question = asks(1.0, 1.0, "How strong is it?")
    records = [
        record("1_0", "continue", question, messages=said[:1], info_truth="symptom severity: moderate", domain=domain),
        record("1_4", "stop", RIGHT_STOP, messages=said, domain=domain),
    ]

    [found] = write_report(files(tmp_path, base=records), names=["base"], output_dir=tmp_path).evaluations

    # The item is told by elimination, which takes knowing that allergies are none.
    assert fields(found) == {"symptom severity": (1, 1, share)}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ("cough, fever", {"(no field)": (1, 1, 1.0)}),
        ("", {}),
        (
            "症状性质: 水样便, Symptom_Nature: dry, symptom nature: wet",
            {"symptom nature": (1, 2, 0.0), "症状性质": (1, 1, 0.0)},
        ),
    ],
)
def test_items_in_odd_forms(info, expected):
    assert (
        fields(summary([record("1_0", "continue", asks(1.0, 1.0, "Is there a fever?"), info_truth=info)])) == expected
    )


def test_the_same_item_twice_is_one():
    found = summary(
        [record("1_0", "continue", asks(1.0, 1.0, "A cough?"), info_truth="symptom: cough, symptom: cough")]
    )

    assert fields(found) == {"symptom": (1, 1, 1.0)}


def test_rare_fields_are_lumped_and_both_evaluations_have_the_same_ones():
    many = ", ".join(f"field {chr(97 + number)}: word{chr(97 + number)}" for number in range(TOP_FIELDS + 2))
    base = [record("1_0", "continue", ("Is it wordm or wordn?", WRONG), info_truth=many)]
    tuned = [record("1_0", "continue", STOPPED, info_truth=many)]
    report = analyse([evaluation(base), evaluation(tuned, "tuned")])

    labels = [[group.label for group in one.coverage.fields] for one in report.evaluations]
    assert labels[0] == labels[1] == [*(f"field {chr(97 + number)}" for number in range(TOP_FIELDS)), REST]
    # Of two fields, each with one item, the one question asks for one.
    assert report.evaluations[0].coverage.fields[-1].asked.value == 0.5
    assert report.evaluations[0].coverage.fields[-1].samples == 1


def test_another_domain_has_its_own_stop_token():
    domain = {"name": "it_support", "stop_token": "<ticket />", "user": "customer", "assistant": "agent"}
    records = [
        record("1_0", "continue", ("<ticket />", WRONG), asks(1.0, 1.0, f"Is it the printer {STOP}?"),
               info_truth="device: floor printer", domain=domain),
        record("1_2", "stop", ("<ticket />", grade(1.0, 1.0)), domain=domain),
    ]  # fmt: skip
    found = summary(records)

    assert found.stop_timing.early == {0: 1, 1: 1}
    assert fields(found) == {"device": (1, 1, 0.5)}
    assert "In turns of the customer" in to_markdown(analyse([evaluation(records)]))


# Best of k


def test_the_best_of_two_of_the_hand_checked_evaluation():
    found = summary(HAND_CHECKED).best_of

    # 2_0 and 5_0 have failed gradings. Best of two: 1_0 4, 1_2 2, 1_4 4, 2_2 4, 3_0 0, 3_2 0, 4_1 3, 4_3 4, 5_2 3,
    # 5_4 3, 6_0 4; their means are 3.25, 1, 3.5, 2, 0, 0, 2.5, 4, 2, 1.5 and 2.
    assert found.samples == 11
    assert [one.value for one in found.rewards] == pytest.approx([21.75 / 11, 31 / 11])
    assert [(one.rollouts, one.sessions) for one in found.rewards] == [(11, 6), (11, 6)]
    text = to_markdown(analyse([evaluation(HAND_CHECKED)]))
    assert "| 2 | 2.818 [" in text and "11 of 13 (base)" in text


def test_one_rollout_a_sample_has_a_best_of_one():
    found = summary([record("1_0", "continue", asks(1.0, 1.0)), record("2_0", "continue", STOPPED)])

    assert [one.value for one in found.best_of.rewards] == [2.0]


def test_gradings_that_all_failed_leave_no_best():
    found = summary([record("1_0", "continue", UNGRADED, UNGRADED), record("2_0", "continue", UNGRADED, UNGRADED)])

    assert found.best_of.samples == 0
    assert [one.value for one in found.best_of.rewards] == [None, None]


def test_without_any_rollout_there_is_no_best():
    report = analyse([evaluation([record("1_0", "continue"), record("2_0", "stop")])])

    assert report.evaluations[0].best_of.rewards == []
    assert fields(report.evaluations[0]) == {"symptom": (1, 1, None)}
    assert "## Best of k" in to_markdown(report)


def test_evaluations_with_more_and_fewer_rollouts_stand_side_by_side():
    few = [record("1_0", "continue", asks(1.0, 1.0))]
    many = [record("1_0", "continue", asks(1.0, 1.0), STOPPED, STOPPED)]

    text = to_markdown(analyse([evaluation(few), evaluation(many, "tuned")]))

    assert "| 1 | 4.000 [n/a] | 1.333 [n/a] |" in text
    assert "| 3 |  | 4.000 [n/a] |" in text


def test_the_order_of_the_samples_changes_nothing():
    shuffled = random.Random(1).sample(HAND_CHECKED, len(HAND_CHECKED))
    before, after = summary(HAND_CHECKED), summary(shuffled)

    def values(one):
        timing = {**means(one.stop_timing.metrics), **one.stop_timing.early}
        return timing, *fields(one).values(), [estimate.value for estimate in one.best_of.rewards]

    for left, right in zip(values(before), values(after), strict=True):
        assert left == pytest.approx(right)


# A reference

LOGGED = {"policy": "logged doctor", "sampling": None, "sampling_applied": None}
SAMPLED = {"sampling_applied": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "repetition_penalty": None}}


def files(tmp_path, **contents):
    return [write(tmp_path / f"{name}.jsonl", records) for name, records in contents.items()]


BASE = [{**GOOD, **SAMPLED}, record("2_0", "continue", STOPPED, **SAMPLED)]
TUNED = [{**GOOD, **SAMPLED}, record("2_0", "continue", asks(1.0, 1.0), **SAMPLED)]
REFERENCE = [record("1_0", "continue", asks(1.0, 0.5, "Dry? Since when?"), **LOGGED)]


@pytest.mark.parametrize("order", [("base", "tuned", "doctor"), ("doctor", "base", "tuned")])
def test_a_reference_stands_beside_the_policies_and_is_compared_with_none(tmp_path, order):
    contents = {"base": BASE, "tuned": TUNED, "doctor": REFERENCE}
    paths = files(tmp_path, **{name: contents[name] for name in order})

    report = write_report(paths, names=order, output_dir=tmp_path)

    assert [(one.name, one.reference) for one in report.evaluations] == [(name, name == "doctor") for name in order]
    assert [(one.baseline, one.name) for one in report.comparisons] == [("base", "tuned")]
    [note] = [note for note in report.notes if note.startswith("doctor: no policy")]
    assert "after 1 sample," in note
    for name in ("report.md", "report.html"):
        assert "no policy, but what the log says next" in (tmp_path / name).read_text()
    assert (
        "| policy | " in (tmp_path / "report.md").read_text()
        and "| logged doctor |" in (tmp_path / "report.md").read_text()
    )


def test_policies_that_were_not_sampled_alike_are_refused_with_a_reference_too(tmp_path):
    other = [{**one, "sampling_applied": None} for one in TUNED]
    paths = files(tmp_path, doctor=REFERENCE, base=BASE, tuned=other)

    with pytest.raises(
        UserError, match=r"tuned\.jsonl:1: sampled with unknown, but .*base\.jsonl:1 with temperature 1"
    ):
        write_report(paths, names=["doctor", "base", "tuned"], output_dir=tmp_path)


def test_a_reference_of_another_grader_is_refused(tmp_path):
    paths = files(tmp_path, base=BASE, doctor=[{**REFERENCE[0], "grader": "vllm:other"}])

    with pytest.raises(UserError, match=r"doctor\.jsonl:1: graded by vllm:other"):
        write_report(paths, names=["base", "doctor"], output_dir=tmp_path)


def test_a_reference_alone_has_a_report_too(tmp_path):
    report = write_report(files(tmp_path, doctor=REFERENCE), names=["doctor"], output_dir=tmp_path)

    assert report.comparisons == [] and report.evaluations[0].reference


# The files


def test_all_three_files_hold_the_new_figures(tmp_path):
    write_report(files(tmp_path, base=HAND_CHECKED), names=["base"], output_dir=tmp_path)

    [found] = json.loads((tmp_path / "report.json").read_text())["evaluations"]
    assert found["reference"] is False
    assert found["stop_timing"]["early"] == {"0": 6, "1": 3}
    assert found["best_of"]["rewards"][1]["value"] == pytest.approx(31 / 11)
    assert [group["label"] for group in found["coverage"]["fields"]] == ["symptom"]
    markdown, page = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    for title in ("When it stops", "Asked for, by field (shared words, no grader)", "Best of k"):
        assert f"## {title}\n" in markdown and f">{title}</h2>" in page
