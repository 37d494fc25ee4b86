"""The interviews that the page lets one read: few enough for a browser, and of every sort."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from tuner.learn_to_ask.core.records import Course, Interview
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS, observe
from tuner.learn_to_ask.report.evaluation import diagnosis_label
from tuner.learn_to_ask.report.examples import MAX_BYTES, MAX_EXAMPLES, Examples
from tuner.learn_to_ask.report.interviews.columns import InterviewFile

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
            file.read(sessions[session_id].offset) if session_id in sessions else None
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
    sides = [
        {
            session.session_id: (session.outcome, float(covered))
            for session, covered in zip(file.sessions, file.held.values[:, _COVERAGE], strict=True)
        }
        for file in files
    ]

    def spread(session_id: str) -> float:
        coverage = [side[session_id][1] for side in sides if session_id in side]
        return max(coverage) - min(coverage)

    every = sorted(set().union(*sides), key=lambda session_id: (crc32(session_id.encode()), session_id))
    turn: dict[str, tuple[int, tuple[str, ...]]] = {}
    seen = Counter[tuple[str, ...]]()
    for session_id in every:
        ends = tuple(side[session_id][0] if session_id in side else "" for side in sides)
        turn[session_id] = seen[ends], ends
        seen[ends] += 1
    most_different = sorted(every, key=spread, reverse=True)[: MAX_EXAMPLES // 4]
    return list(dict.fromkeys([*most_different, *sorted(every, key=lambda session_id: turn[session_id])]))


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
