"""The figures of a report, checked by hand: means, intervals, turns, diagnoses, comparison."""

import pytest
from evaluations import HAND_CHECKED, RIGHT_STOP, STOPPED, UNGRADED, asks, evaluation, record

from tuner.learn_to_ask.evaluation.metrics import METRICS
from tuner.learn_to_ask.report.analysis import TOP_DIAGNOSES, analyse, depth_label
from tuner.learn_to_ask.report.evaluation import diagnosis_label, patient_turns
from tuner.learn_to_ask.report.markdown import to_markdown


def summary(records):
    [found] = analyse([evaluation(records)]).evaluations
    return found


def values(metrics):
    return {key: estimate.value for key, estimate in metrics.items()}


def compared(before, after):
    """The comparison of two evaluations."""
    [found] = analyse([evaluation(before, "base"), evaluation(after, "tuned")]).comparisons
    return found


def test_the_hand_checked_evaluation():
    found = summary(HAND_CHECKED)

    # 13 scored rollouts of continue samples, 9 of which asked; 10 of stop samples. 3 gradings failed, all of questions
    # where asking was right: they count for their decisions.
    assert values(found.metrics) == pytest.approx(
        {
            # 1_0: 1 + 0.5, 1_2: 0 + 0, 2_0: 1, 3_0: 0 + 0, 4_1: 0.5 + 0.5, 5_2: 1 + 0, 6_0: 1 + 0
            "continue_content": 5.5 / 13,
            "continue_content_win_rate": 4 / 13,
            "continue_content_if_correct": 5.5 / 9,
            "continue_content_win_rate_if_correct": 4 / 9,
            "continue_decision_accuracy": 12 / 16,
            # 1_4: 2, 2_2: 1, 3_2: 0, 4_3: 2, 5_4: 1
            "stop_decision_accuracy": 6 / 10,
            "total_decision_accuracy": 18 / 26,
            # 1_0: 1.5, 1_2: 1, 1_4: 1, 2_0: 0.5, 2_2: 1, 4_1: 1, 4_3: 2, 6_0: 1
            "response_format_quality": 9 / 23,
            # 1_0: 6.5, 1_2: 2, 1_4: 7, 2_0: 3.5, 2_2: 4, 4_1: 5, 4_3: 8, 5_2: 4, 5_4: 3, 6_0: 4
            "total_reward": 47 / 23,
        },
        rel=1e-12,
    )
    assert list(found.metrics) == list(METRICS)
    assert (found.samples, found.sessions, found.rollouts, found.failed, found.samples_without_scores) == (
        13, 6, 26, 3, 1,
    )  # fmt: skip
    matrix = found.confusion
    assert (matrix.continue_continue, matrix.continue_stop, matrix.stop_continue, matrix.stop_stop) == (12, 4, 4, 6)


def test_the_hand_checked_evaluation_by_turn_depth_and_by_diagnosis():
    found = summary(HAND_CHECKED)

    # cids that end in _0, and 4_1 with its greeting, have one patient turn; _2 and 4_3 two; _4 three.
    assert [(group.label, group.samples) for group in found.by_depth] == [("1", 6), ("2", 5), ("3", 2)]
    rewards = [group.metrics["total_reward"].value for group in found.by_depth]
    assert rewards == pytest.approx([(6.5 + 3.5 + 5 + 4) / 9, (2 + 4 + 8 + 4) / 10, (7 + 3) / 4])
    # Cold and Flu have 5 samples each, so the alphabet decides.
    assert [(group.label, group.samples) for group in found.by_diagnosis] == [
        ("Cold", 5), ("Flu", 5), ('["Flu", 1]', 2), ("(none)", 1),
    ]  # fmt: skip
    rewards = [group.metrics["total_reward"].value for group in found.by_diagnosis]
    assert rewards == pytest.approx([(6.5 + 2 + 7 + 3.5 + 4) / 9, (4 + 3) / 8, (5 + 8) / 4, 4 / 2])


def test_the_published_layout_shows_the_hand_checked_figures_to_three_decimals():
    rows = {
        line.split("|")[1].strip(): line.split("|")[2].split()[0]
        for line in to_markdown(analyse([evaluation(HAND_CHECKED)])).splitlines()
        if line.startswith(("| Avg", "| Win", "| Total", "| Resp"))
    }

    assert rows == {
        "Avg. continue content": "0.423",
        "Win rate (continue content)": "0.308",
        "Avg. continue content if correct": "0.611",
        "Win rate (continue content) if correct": "0.444",
        "Avg. continue decision accuracy": "0.750",
        "Avg. stop decision accuracy": "0.600",
        "Total decision accuracy": "0.692",
        "Response format quality": "0.391",
        "Total reward": "2.043",
    }


def test_metrics_over_nothing_are_na_and_never_dropped():
    report = analyse([evaluation([record("1_0", "continue", UNGRADED), record("2_0", "continue")])])

    decided = {"continue_decision_accuracy", "total_decision_accuracy"}  # needs no grader
    assert {key for key, value in values(report.evaluations[0].metrics).items() if value is not None} == decided
    assert report.evaluations[0].samples_without_scores == 2
    lines = to_markdown(report).splitlines()
    for metric in [metric for key, metric in METRICS.items() if key not in decided]:
        assert any(line.startswith(f"| {metric.title} | n/a |") for line in lines)


def test_a_single_session_has_means_and_no_interval():
    report = analyse([evaluation([record("1_0", "continue", asks(1.0, 1.0)), record("1_2", "stop", RIGHT_STOP)])])

    reward = report.evaluations[0].metrics["total_reward"]
    assert (reward.value, reward.low, reward.high) == (4.0, None, None)
    assert "4.000 [n/a]" in to_markdown(report)


def test_the_verdict_follows_the_interval_of_the_difference():
    sessions = range(1, 41)
    good = [record(f"{number}_0", "continue", asks(1.0, 1.0)) for number in sessions]
    bad = [record(f"{number}_0", "continue", STOPPED) for number in sessions]
    turns = [record(f"{number}_0", "continue", STOPPED if number % 2 else asks(1.0, 1.0)) for number in sessions]
    other_turns = [record(f"{number}_0", "continue", asks(1.0, 1.0) if number % 2 else STOPPED) for number in sessions]

    def verdict(before, after):
        return compared(before, after).metrics["total_reward"].verdict

    assert verdict(bad, good) == verdict(bad, turns) == "better"
    assert verdict(good, bad) == verdict(good, turns) == "worse"
    assert verdict(turns, other_turns) == verdict(good, good) == "not distinguishable"
    assert compared(bad, good).metrics["stop_decision_accuracy"].verdict == "n/a"


def test_a_comparison_is_over_common_samples_alone():
    # Given: 2_0 is only in the first evaluation, 3_0 only in the second.
    before = [record("1_0", "continue", STOPPED), record("2_0", "continue", asks(1.0, 1.0))]
    after = [record("3_0", "continue", STOPPED), record("1_0", "continue", asks(0.0, 1.0))]

    found = compared(before, after)

    assert (found.common, found.only_in_baseline, found.only_in_other, found.sessions) == (1, 1, 1, 1)
    reward = found.metrics["total_reward"]
    assert (reward.before, reward.after, reward.difference.value, reward.verdict) == (0.0, 2.0, 2.0, "n/a")
    report = analyse([evaluation(before, "base"), evaluation(after, "tuned")])
    assert any("1 are only in base, 1 only in tuned" in note for note in report.notes)


def test_reliability_is_computed_from_repeated_grades():
    again = [{"think": "", "format_score": 1.0, "content_score": 0.5}]
    failed = [{"think": "", "format_score": None, "content_score": None}]
    found = summary(
        [
            record("1_0", "continue", asks(1.0, 1.0), asks(0.5, 1.0), regrades=[again, again]),
            record("2_0", "continue", asks(0.0, 0.0), asks(1.0, 1.0), regrades=[failed, []]),
        ]
    ).reliability

    # Content: 1 and 0.5, 0.5 and 0.5; the third rollout has one grade that can be read.
    assert (found["content_score"].rollouts, found["content_score"].exact) == (2, 0.5)
    assert found["content_score"].mean_absolute_difference == 0.25
    assert (found["format_score"].rollouts, found["format_score"].exact, found["format_score"].alpha) == (2, 1.0, None)


@pytest.mark.parametrize(
    ("roles", "turns"), [("u", 1), ("uu", 1), ("au", 1), ("uau", 2), ("uuaauuau", 3), ("aauauau", 3), ("uaa", 1)]
)
def test_turn_depth_counts_how_often_the_patient_spoke(roles, turns):
    names = {"u": "user", "a": "assistant"}

    assert patient_turns([{"role": names[role], "content": "x"} for role in roles]) == turns


def test_late_turns_share_a_bin():
    depths = (1, 6, 7, 9, 10, 400)
    assert [depth_label(depth) for depth in depths] == ["1", "6", "7-9", "7-9", "10+", "10+"]


@pytest.mark.parametrize(
    ("diagn", "label"),
    [("Flu", "Flu"), (" two\nlines ", "two lines"), (None, "(none)"), ("", "(none)"), (7, "7"), ({"b": 1}, '{"b": 1}')],
)
def test_a_diagnosis_may_be_any_json_value(diagn, label):
    assert diagnosis_label(diagn) == label


def test_rare_diagnoses_are_lumped_at_the_end_in_every_evaluation():
    # Given: diagnosis 0 on most samples, then 1, and so on.
    names = [f"diagnosis {number:02}" for number in range(TOP_DIAGNOSES + 3)]
    records = [
        record(f"{number * 100 + copy}_0", "continue", asks(1.0, 1.0), diagn=name)
        for number, name in enumerate(names)
        for copy in range(len(names) - number)
    ]
    base, tuned = analyse([evaluation(records), evaluation(records[:1], "tuned")]).evaluations

    assert [group.label for group in base.by_diagnosis] == [*names[:TOP_DIAGNOSES], "all others"]
    assert base.by_diagnosis[-1].samples == 3 + 2 + 1
    assert [group.samples for group in tuned.by_diagnosis] == [1] + [0] * TOP_DIAGNOSES
