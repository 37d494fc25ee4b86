"""What scripted policies are worth, worked out by hand, and what holds for every policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interviews import QUESTIONS, STOP, interview

from tuner.learn_to_ask.evaluation.interview_estimates import estimate
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS, measure, observe

NATURE, SEVERITY, TRIGGER = QUESTIONS


def worth(*said, max_turns=6):
    one = interview(*said, max_turns=max_turns)
    return measure(observe(one, one.held))


def outcome(metrics):
    """The one outcome that an interview has."""
    (only,) = [key for key in ("in_time", "too_early", "too_late", "broken_off") if metrics[key] == 1.0]
    assert sum(metrics[key] for key in ("in_time", "too_early", "too_late", "broken_off")) == 1.0
    return only


def test_one_that_asks_every_fact_once_and_stops():
    # Coverage after turns 1 to 6 is 1/3, 2/3, 1, 1, 1, 1.
    metrics = worth(*QUESTIONS, STOP)

    assert outcome(metrics) == "in_time"
    assert metrics["coverage"] == 1.0
    assert metrics["coverage_area"] == pytest.approx(5 / 6)
    assert metrics["facts_a_question"] == 1.0
    assert metrics["turns"] == 3.0
    assert metrics["turns_too_late"] == 0.0
    assert (metrics["repeated"], metrics["unanswerable"], metrics["format_breaches"]) == (0.0, 0.0, 0.0)


def test_one_that_stops_at_once():
    metrics = worth(STOP)

    assert outcome(metrics) == "too_early"
    assert (metrics["coverage"], metrics["coverage_area"], metrics["turns"]) == (0.0, 0.0, 0.0)
    # Nothing was asked, and not every fact came to light.
    asked_nothing = ("facts_a_question", "repeated", "unanswerable", "turns_too_late")
    assert [metrics[key] for key in asked_nothing] == [None] * 4
    assert metrics["format_breaches"] == 0.0


def test_one_that_never_stops():
    metrics = worth(*QUESTIONS, "Do you smoke?", "Do you own a dog?", "Where do you live?")

    assert outcome(metrics) == "too_late"
    assert (metrics["coverage"], metrics["turns"], metrics["turns_too_late"]) == (1.0, 6.0, 3.0)
    assert metrics["facts_a_question"] == 0.5
    assert metrics["unanswerable"] == 0.5


def test_one_that_repeats_itself():
    # Facts: new, the same again, the same in other words; then the opening is asked for.
    metrics = worth(NATURE, "is the STOOL watery", "What does your stool look like?", "Do you have diarrhea?", STOP)

    assert outcome(metrics) == "too_early"
    assert metrics["coverage"] == pytest.approx(1 / 3)
    assert metrics["coverage_area"] == pytest.approx(1 / 3)
    assert metrics["facts_a_question"] == 0.25
    assert metrics["repeated"] == 0.75
    assert metrics["unanswerable"] == 0.0
    assert metrics["format_breaches"] == 0.0


def test_one_that_asks_nonsense_is_broken_off():
    metrics = worth("purple monkey dishwasher", "", "", "purple monkey dishwasher!", "Why?", "...")

    assert outcome(metrics) == "broken_off"
    assert (metrics["coverage"], metrics["turns"]) == (0.0, 6.0)
    assert metrics["unanswerable"] == 1.0
    assert metrics["repeated"] == pytest.approx(3 / 6)  # nothing twice, the dishwasher twice, and "..." is nothing too
    assert metrics["format_breaches"] == pytest.approx(5 / 6)  # all but "Why?"


def test_one_that_asks_for_two_facts_at_a_time():
    metrics = worth("Is the stool watery, and did you eat something spicy?", SEVERITY, STOP)

    assert outcome(metrics) == "in_time"
    assert metrics["facts_a_question"] == 1.5
    assert metrics["coverage_area"] == pytest.approx((2 / 3 + 5) / 6)
    assert metrics["format_breaches"] == pytest.approx(1 / 3)


def test_one_that_goes_on_for_a_turn_and_stops_with_more_words_than_the_token():
    metrics = worth(*QUESTIONS, "Do you smoke?", f"Thank you. {STOP}")

    assert outcome(metrics) == "too_late"
    assert metrics["turns_too_late"] == 1.0
    assert metrics["format_breaches"] == 0.2


def test_one_that_finds_the_last_fact_in_the_last_turn_is_broken_off_and_not_too_late():
    metrics = worth(*QUESTIONS, max_turns=3)

    assert outcome(metrics) == "broken_off"
    assert (metrics["coverage"], metrics["turns_too_late"]) == (1.0, 0.0)


def test_means_have_intervals_over_sessions_and_leave_out_what_does_not_apply():
    asks, stops = worth(*QUESTIONS, STOP), worth(STOP)

    estimates = estimate([asks, stops, asks, stops])

    assert estimates["coverage"].value == 0.5
    assert estimates["coverage"].low < 0.5 < estimates["coverage"].high
    assert (estimates["repeated"].value, estimates["repeated"].sessions) == (0.0, 2)
    assert estimate([stops])["repeated"].value is None


SAID = st.lists(
    st.sampled_from([*QUESTIONS, "Do you smoke?", "", "tell me everything", "Do you have diarrhea?"]) | st.text(),
    max_size=6,
)
SHARES = ("coverage", "coverage_area", "repeated", "unanswerable", "format_breaches")


@given(SAID)
def test_coverage_never_falls_and_every_metric_is_in_its_range(said):
    one = interview(*said, max_turns=6)
    observed = observe(one, one.held)

    assert observed.curve == sorted(observed.curve)
    metrics = measure(observed)
    outcome(metrics)
    assert all(0.0 <= metrics[key] <= 1.0 for key in SHARES if metrics[key] is not None)
    assert 0.0 <= metrics["turns"] <= 6.0
    assert all(value is None or value >= 0.0 for value in metrics.values())


@given(SAID, SAID)
def test_more_turns_find_no_less(said, more):
    assert worth(*said[:3])["coverage"] <= worth(*said[:3], *more[:3])["coverage"]


@given(st.lists(st.sampled_from([(STOP,), (*QUESTIONS, STOP), (NATURE, STOP), ("",)]), min_size=1), st.randoms())
def test_the_order_of_the_sessions_changes_no_mean(scripts, random):
    measured = [worth(*script) for script in scripts]
    shuffled = random.sample(measured, len(measured))

    before, after = estimate(measured), estimate(shuffled)

    assert [after[key].value for key in METRICS] == pytest.approx([before[key].value for key in METRICS])
