"""Computes what the report of whole interviews says: means, curves and comparisons."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tuner.learn_to_ask.evaluation.bootstrap import (
    Estimate,
    FloatArray,
    SessionTotals,
    estimate_differences,
    estimate_means,
    session_totals,
)
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS
from tuner.learn_to_ask.report.interviews.columns import Courses, InterviewFile
from tuner.learn_to_ask.report.interviews.notes import notes
from tuner.learn_to_ask.report.interviews.results import (
    InterviewComparison,
    InterviewDifference,
    InterviewReport,
    InterviewSummary,
    LoggedSummary,
    Verdict,
)


def analyse_interviews(files: Sequence[InterviewFile]) -> InterviewReport:
    """Computes the report.

    Args:
        files: At least one; several must be comparable, see `columns.check_interviews_comparable`.
    """
    first, *others = files
    policies = [
        InterviewSummary(
            name=file.name,
            file=str(file.path),
            policies=file.policies,
            users=file.users,
            samplings=file.samplings,
            sessions=len(file.sessions),
            metrics=_metrics(file.held),
            curve=_curve(file.held),
        )
        for file in files
    ]
    logged = _logged(files)
    comparisons = [_comparison(first, other) for other in others]
    return InterviewReport(
        policies=policies,
        logged=logged,
        comparisons=comparisons,
        notes=notes(policies, logged, comparisons),
        domain=first.domain.name,
        user=first.domain.user,
        assistant=first.domain.assistant,
        max_turns=first.max_turns,
    )


def verdict(difference: Estimate, *, better: Literal["more", "less"] | None) -> Verdict:
    """What the interval of a difference allows to say.

    Args:
        difference: After minus before.
        better: Which of two values is the better one, if any is.
    """
    if difference.low is None or difference.high is None:
        return "n/a"
    if difference.low <= 0 <= difference.high:
        return "not distinguishable"
    change: Literal["more", "less"] = "more" if difference.low > 0 else "less"
    if better is None:
        return change
    return "better" if change == better else "worse"


def _totals(rows: FloatArray) -> SessionTotals:
    """What every session adds to every mean; it has one row."""
    return session_totals(np.arange(len(rows)), rows, session_count=len(rows))


def _metrics(courses: Courses) -> dict[str, Estimate]:
    """Every metric of one side."""
    return dict(zip(METRICS, estimate_means(_totals(courses.values)), strict=True))


def _curve(courses: Courses) -> list[Estimate]:
    """The coverage after each turn of one side."""
    return estimate_means(_totals(courses.curves))


def _logged(files: Sequence[InterviewFile]) -> LoggedSummary:
    """The logged expert over every session that is in any file."""
    source: dict[str, tuple[InterviewFile, int]] = {}
    different: set[str] = set()
    for file in files:
        for row, session in enumerate(file.sessions):
            taken, place = source.setdefault(session.session_id, (file, row))
            if taken.sessions[place].logged != session.logged:
                different.add(session.session_id)
    rows = [source[session_id] for session_id in sorted(source)]
    courses = Courses(
        values=np.array([file.logged.values[row] for file, row in rows]),
        curves=np.array([file.logged.curves[row] for file, row in rows]),
    )
    return LoggedSummary(
        sessions=len(rows),
        answered_differently=len(different),
        metrics=_metrics(courses),
        curve=_curve(courses),
    )


def _comparison(first: InterviewFile, other: InterviewFile) -> InterviewComparison:
    """Two policies on the sessions that both have."""
    common = {session.session_id for session in first.sessions} & {session.session_id for session in other.sessions}
    before, after = (
        _totals(file.held.values[[session.session_id in common for session in file.sessions]])
        for file in (first, other)
    )
    columns = zip(METRICS, before.means(), after.means(), estimate_differences(before, after), strict=True)
    return InterviewComparison(
        baseline=first.name,
        name=other.name,
        common=len(common),
        only_in_baseline=len(first.sessions) - len(common),
        only_in_other=len(other.sessions) - len(common),
        different_users=len({*first.users, *other.users}) > 1,
        different_sampling=len({*first.samplings, *other.samplings}) > 1,
        metrics={
            key: InterviewDifference(
                before=_none(left),
                after=_none(right),
                difference=difference,
                verdict=verdict(difference, better=METRICS[key].better),
            )
            for key, left, right, difference in columns
        },
    )


def _none(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else float(value)
