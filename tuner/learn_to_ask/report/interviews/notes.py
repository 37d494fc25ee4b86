"""What a reader must know before believing the figures of whole interviews, computed from them."""

from collections.abc import Iterator, Sequence

from tuner.learn_to_ask.evaluation.interview_metrics import METRICS
from tuner.learn_to_ask.report.common_notes import FEW_SESSIONS, different_sampling, few_sessions
from tuner.learn_to_ask.report.interviews.results import InterviewComparison, InterviewSummary, LoggedSummary
from tuner.learn_to_ask.report.tables import interval, number

_STOPPING_AND_FORMAT = ("in_time", "too_early", "too_late", "broken_off", "format_breaches")


def notes(
    policies: Sequence[InterviewSummary], logged: LoggedSummary, comparisons: Sequence[InterviewComparison]
) -> list[str]:
    """All notes, those on what the figures mean first."""
    return [
        *(note for comparison in comparisons for note in _no_better_interviews(comparison)),
        *(note for policy in policies for note in _policy_notes(policy)),
        *(note for comparison in comparisons for note in _comparison_notes(comparison)),
        *_logged_notes(logged),
    ]


def _no_better_interviews(comparison: InterviewComparison) -> Iterator[str]:
    """Says so where coverage did not rise for certain, and what changed instead."""
    coverage = comparison.metrics["coverage"]
    if coverage.verdict == "better":
        return
    found = {
        "worse": f"holds worse interviews than {comparison.baseline}: it finds out less by the time it stops",
        "not distinguishable": f"does not find out distinguishably more than {comparison.baseline} in whole interviews",
        "n/a": f"cannot be told apart from {comparison.baseline}: too few sessions",
    }[coverage.verdict]
    changed = [
        f"{METRICS[key].title} {number(change.before)} \N{RIGHTWARDS ARROW} {number(change.after)} ({change.verdict})"
        for key in _STOPPING_AND_FORMAT
        if (change := comparison.metrics[key]).verdict in ("better", "worse")
    ]
    yield (
        f"{comparison.name} {found}. Coverage at stop changed by {interval(coverage.difference, signed=True)}. "
        "Training rewards single next messages after dialogues of the log, not an interview that the policy leads. "
        + (
            f"What did change in how it stops and in its format: {'; '.join(changed)}."
            if changed
            else "Nor did how it stops or its format change distinguishably."
        )
    )


def _policy_notes(policy: InterviewSummary) -> Iterator[str]:
    """What to know about the interviews of one policy."""
    if len(policy.policies) > 1:
        yield f"{policy.name}: its interviews were not all held by the same policy."
    if len(policy.users) > 1:
        yield f"{policy.name}: its interviews were not all answered by the same user."
    if len(policy.samplings) > 1:
        yield f"{policy.name}: its interviews were not all sampled alike."
    if policy.sessions < FEW_SESSIONS:
        yield few_sessions(policy.name, policy.sessions)


def _comparison_notes(comparison: InterviewComparison) -> Iterator[str]:
    """What to know about one comparison."""
    pair = f"{comparison.name} against {comparison.baseline}"
    if comparison.different_users:
        yield f"{pair}: not answered by the same user. A difference may be the users', not the policies'."
    if comparison.different_sampling:
        yield different_sampling(pair)
    if comparison.only_in_baseline or comparison.only_in_other:
        yield (
            f"{pair}: compared on the {comparison.common:,} sessions that both have; {comparison.only_in_baseline:,} "
            f"are only in {comparison.baseline}, {comparison.only_in_other:,} only in {comparison.name}."
        )


def _logged_notes(logged: LoggedSummary) -> Iterator[str]:
    """What to know about the line to compare with."""
    if logged.answered_differently:
        yield (
            f"Logged questions: in {logged.answered_differently:,} of {logged.sessions:,} sessions they were not "
            "answered alike in every file; the line is from the first file that has the session."
        )
