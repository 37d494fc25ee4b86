"""Interview files as columns: what the statistics need of their records, without their texts; and what is refused."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.learn_to_ask.core.records import Course, Interview, RecordDomain
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.bootstrap import FloatArray
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS, Observed, measure, observe
from tuner.learn_to_ask.report.evaluation import diagnosis_label, names_or_unknown, sampling_label
from tuner.learn_to_ask.report.sound_file import INTERVIEWS, SoundFile


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSession:
    """What is remembered of a record.

    Attributes:
        session_id: Of the session.
        line: Where it stands in the file, counted from 1.
        offset: The same in bytes.
        asked: A hash of what the policy met: opening and facts; the same in one process for the same.
        logged: A hash of how the logged expert's questions were answered, likewise.
        diagnosis: For showing.
        outcome: How the policy's interview ended.
    """

    session_id: str
    line: int
    offset: int
    asked: int
    logged: int
    diagnosis: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Courses:
    """What the courses of one side came to, a row for each session.

    Attributes:
        values: What each adds to each of `METRICS`, NaN where a metric is not about it.
        curves: Coverage after turn 0, 1, … up to the turn limit.
    """

    values: FloatArray
    curves: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class InterviewFile:
    """An interview file, read.

    Attributes:
        name: What the report calls it.
        path: Of the file.
        policies: Every `policy` its records name.
        users: Every `user`.
        samplings: Every `sampling_applied`, as text.
        domain: Of all its records.
        max_turns: Of all its records.
        sessions: By `session_id`, whatever their order in the file, so that no figure depends on it.
        held: The policy's interviews, in the order of `sessions`.
        logged: The logged expert's, likewise.
        read: Gives the interview at an offset.
    """

    name: str
    path: Path
    policies: list[str]
    users: list[str]
    samplings: list[str]
    domain: RecordDomain
    max_turns: int
    sessions: list[HeldSession]
    held: Courses
    logged: Courses
    read: Callable[[int], Interview]


def read_interviews(path: Path, *, name: str) -> InterviewFile:
    """Reads an interview file, one line in memory at a time.

    Args:
        path: Written by `evaluation.interview`.
        name: What the report calls it.

    Raises:
        UserError: When the file is not sound, see `sound_file`, or its interviews have different turn limits.
    """
    sessions: list[HeldSession] = []
    held: list[Observed] = []
    logged: list[Observed] = []
    policies, users, samplings = set[str](), set[str](), set[str]()
    domain, max_turns = RecordDomain(), 0
    file = SoundFile(INTERVIEWS, path)
    for line, offset, one in file.records(title=f"reading {name}"):
        if max_turns not in (0, one.max_turns):
            raise UserError(
                f"{path}:{line}: is broken off after {one.max_turns} turns, the lines before after {max_turns}; hold "
                "all of them with one --max_turns"
            )
        domain, max_turns = one.domain, one.max_turns
        policies.add(one.policy)
        users.add(one.user)
        samplings.add(sampling_label(one.sampling_applied))
        held.append(observe(one, one.held))
        logged.append(observe(one, one.logged))
        sessions.append(_remembered(one, held[-1].outcome, line=line, offset=offset))
    order = sorted(range(len(sessions)), key=lambda place: sessions[place].session_id)
    return InterviewFile(
        name=name,
        path=path,
        policies=sorted(policies),
        users=sorted(users),
        samplings=sorted(samplings),
        domain=domain,
        max_turns=max_turns,
        sessions=[sessions[place] for place in order],
        held=_courses([held[place] for place in order]),
        logged=_courses([logged[place] for place in order]),
        read=file.read,
    )


def check_interviews_comparable(
    files: Sequence[InterviewFile], *, allow_different_users: bool, allow_different_sampling: bool
) -> None:
    """Makes sure that differences between interviews come from the policies.

    Args:
        files: The first is compared with every other.
        allow_different_users: Whether different users are no reason to refuse.
        allow_different_sampling: The same for how the policies were sampled.

    Raises:
        UserError: When two files share no session, or differ in their domain, in their turn limit, in what the policy
            met in a session, in who answers or in the sampling.
    """
    first, *others = files
    known = {session.session_id: session for session in first.sessions}
    for other in others:
        if first.domain != other.domain:
            raise UserError(
                f"{other.path}:1: is of domain {other.domain.name}, but {first.path}:1 of {first.domain.name}, or "
                "their stop tokens differ; compare interviews of one domain"
            )
        common = [(known[session.session_id], session) for session in other.sessions if session.session_id in known]
        if not common:
            raise UserError(
                f"{other.path}:1: no session of this file is in {first.path}; compare interviews with the users of one "
                "test set"
            )
        if first.max_turns != other.max_turns:
            raise UserError(
                f"{other.path}:1: broken off after {other.max_turns} turns, but {first.path}:1 after "
                f"{first.max_turns}; hold both with the same --max_turns"
            )
        for left, right in sorted(common, key=lambda pair: pair[1].line):
            if left.asked != right.asked:
                raise UserError(
                    f"{other.path}:{right.line}: session {right.session_id!r} has another opening or other facts in "
                    f"{first.path}:{left.line}; hold both with the same --test_file_path"
                )
        if len({*first.users, *other.users}) > 1 and not allow_different_users:
            raise UserError(
                f"{other.path}:1: answered by {names_or_unknown(other.users)}, but {first.path}:1 by "
                f"{names_or_unknown(first.users)}; hold both with the same --user, or pass --allow_different_users to "
                "compare them all the same"
            )
        if len({*first.samplings, *other.samplings}) > 1 and not allow_different_sampling:
            raise UserError(
                f"{other.path}:1: sampled with {names_or_unknown(other.samplings)}, but {first.path}:1 with "
                f"{names_or_unknown(first.samplings)}; hold both with the same sampling, or pass "
                "--allow_different_sampling to compare them all the same"
            )


def _remembered(one: Interview, outcome: str, *, line: int, offset: int) -> HeldSession:
    """A record without its texts."""
    opening = tuple((message["role"], message["content"]) for message in one.messages)
    facts = tuple((fact.item, fact.said) for fact in one.facts)
    return HeldSession(
        session_id=one.session_id,
        line=line,
        offset=offset,
        asked=hash((opening, facts)),
        logged=_course_hash(one.logged),
        diagnosis=diagnosis_label(one.diagn),
        outcome=outcome,
    )


def _course_hash(course: Course) -> int:
    """A hash of everything in a course."""
    return hash(course.model_dump_json())


def _courses(observed: Sequence[Observed]) -> Courses:
    """Observed courses as columns."""
    measured = [measure(one) for one in observed]
    values = [[math.nan if (value := one[key]) is None else value for key in METRICS] for one in measured]
    return Courses(values=np.array(values), curves=np.array([[0.0, *one.curve] for one in observed]))
