"""The interviews that the page lets one read: few enough for a browser, and of every sort."""

import json
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from tuner.learn_to_ask.core.records import Course, Interview
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS, observe
from tuner.learn_to_ask.report.evaluation import diagnosis_label
from tuner.learn_to_ask.report.examples import MAX_BYTES, MAX_EXAMPLES, Examples
from tuner.learn_to_ask.report.interviews.columns import HeldSession, InterviewFile
from tuner.learn_to_ask.report.sound_file import INTERVIEWS

_COVERAGE = list(METRICS).index("coverage")


def choose_interviews(files: Sequence[InterviewFile]) -> Examples:
    """Chooses sessions and reads their texts.

    Args:
        files: Comparable with one another.
    """
    known = [{session.session_id: session for session in file.sessions} for file in files]
    items: dict[str, dict[str, Any]] = {}
    left = MAX_BYTES
    for session_id in rank_sessions(files)[:MAX_EXAMPLES]:
        records = [
            INTERVIEWS.read(file.path, sessions[session_id].offset) if session_id in sessions else None
            for file, sessions in zip(files, known, strict=True)
        ]
        item = _item(records)
        size = len(json.dumps(item, ensure_ascii=False).encode())
        if size <= left:
            left -= size
            items[session_id] = item
    return Examples(total=len(set().union(*known)), items=[items[session_id] for session_id in sorted(items)])


def rank_sessions(files: Sequence[InterviewFile]) -> list[str]:
    """Orders sessions so that any first part of them is a good choice; the same order every time.

    The first quarter of `MAX_EXAMPLES` are those in which coverage differs most. The others take turns: one of each
    combination of outcomes, then the next of each.

    Args:
        files: Where the sessions come from.
    """
    coverage: dict[str, list[float]] = {}
    outcomes: dict[str, list[str]] = {}
    for place, file in enumerate(files):
        for session, covered in zip(file.sessions, file.held.values[:, _COVERAGE], strict=True):
            coverage.setdefault(session.session_id, []).append(float(covered))
            _place(outcomes, session, place, len(files))

    def order(session_id: str) -> tuple[int, str]:
        return crc32(session_id.encode()), session_id

    every = sorted(coverage, key=order)
    most_different = sorted(every, key=lambda one: min(coverage[one]) - max(coverage[one]))[: MAX_EXAMPLES // 4]
    seen: dict[tuple[str, ...], int] = {}
    turns = {}
    for session_id in every:
        sort = tuple(outcomes[session_id])
        turns[session_id] = (seen.get(sort, 0), sort)
        seen[sort] = seen.get(sort, 0) + 1
    return list(dict.fromkeys([*most_different, *sorted(every, key=lambda one: turns[one])]))


def _place(outcomes: dict[str, list[str]], session: HeldSession, place: int, count: int) -> None:
    """Notes how a session ended in one of the files; `""` in those that do not have it."""
    outcomes.setdefault(session.session_id, [""] * count)[place] = session.outcome


def _item(records: Sequence[Interview | None]) -> dict[str, Any]:
    """One session with the courses of every policy, `None` where one is missing, and the logged expert's last."""
    known = [record for record in records if record is not None]
    one = known[0]
    return {
        "session": one.session_id,
        "diagnosis": diagnosis_label(one.diagn),
        "messages": one.messages,
        "facts": [fact.item for fact in one.facts],
        "courses": [
            *(None if record is None else _course(record, record.held) for record in records),
            _course(one, one.logged),
        ],
    }


def _course(interview: Interview, course: Course) -> dict[str, Any]:
    """One course, each turn with what it brought to light and what is to be said of it."""
    observed = observe(interview, course)
    known: set[int] = set()
    turns = []
    for place, turn in enumerate(course.turns):
        marks = {
            "repeated": observed.repeated[place],
            "no answer in the log": observed.unanswered[place],
            "not one question": observed.breaches[place],
        }
        turns.append(
            {
                "question": turn.question,
                "answer": turn.answer,
                "new": sorted(set(turn.facts) - known),
                "marks": [mark for mark, holds in marks.items() if holds],
            }
        )
        known |= set(turn.facts)
    return {
        "turns": turns,
        "end": course.end,
        "marks": ["not exactly the stop token"] if course.end is not None and observed.breaches[-1] else [],
        "outcome": observed.outcome,
        "coverage": sum(observed.new) / observed.facts,
    }
