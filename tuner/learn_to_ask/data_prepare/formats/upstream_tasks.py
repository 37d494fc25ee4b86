"""Labelled files of the published example, and AgentJet's tasks: our records, but for names and for what is missing."""

import math
from typing import Any

from tuner.learn_to_ask.core.records import GradedTask, Task
from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles, dialogue_of, plain_diagn
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, Row
from tuner.learn_to_ask.jsonl import LineError, as_record

_NOT_GRADED = "NA"  # what the published script writes for the reasoning of a grader that it did not ask


def is_task(value: object) -> bool:
    """Whether a row looks like a line of the published train and test files."""
    return isinstance(value, dict) and {"cid", "messages", "decision_truth"} <= value.keys() and "rollouts" not in value


def is_rollouts(value: object) -> bool:
    """Whether a row looks like a line of the published rollout file."""
    return isinstance(value, dict) and {"cid", "rollouts"} <= value.keys() and "grades" not in value


def is_evaluation(value: object) -> bool:
    """Whether a row looks like a line of the published evaluation file."""
    return isinstance(value, dict) and {"cid", "rollouts", "grades"} <= value.keys()


def is_agentjet(value: object) -> bool:
    """Whether a row looks like one of AgentJet's tasks."""
    return isinstance(value, dict) and {"init_messages", "task_id"} <= value.keys()


def from_labelled(row: Row, roles: Roles, record_type: type[Task]) -> Converted:
    """A task, its rollouts or their grades. Ids stay as they are, for rollouts and evaluations refer to them.

    Args:
        row: Of a published train, test, rollout or evaluation file.
        roles: Of the log.
        record_type: `Task`, `TaskWithRollouts` or `GradedTask`.

    Raises:
        LineError: When it is not the schema.
    """
    messages, notes = dialogue_of(row.value.get("messages"), roles)
    if messages and messages[-1]["role"] == "assistant":
        notes = (*notes, "kept, though the doctor spoke last: context")
    value = {**row.value, "messages": messages, "diagn": plain_diagn(row.value.get("diagn"))}
    if record_type is GradedTask:
        value["grades"], failed = _grades(value["grades"])
        notes = (*notes, *failed)
    return Converted(row.place, as_record(value, record_type), notes)


def from_agentjet(row: Row, roles: Roles) -> Converted:
    """The task of one of AgentJet's; its query and environment are placeholders.

    Args:
        row: With `init_messages`, `task_id` and `metadata`.
        roles: Of the log.

    Raises:
        LineError: When it is not the schema.
    """
    metadata = row.value.get("metadata")
    if not isinstance(metadata, dict):
        raise LineError("bad metadata", "metadata: is no object with session_id, decision_truth and info_truth")
    value = {**metadata, "cid": row.value["task_id"], "messages": row.value["init_messages"]}
    return from_labelled(Row(row.place, row.name, value), roles, Task)


def _grades(grades: object) -> tuple[object, list[str]]:
    """Grades whose scores are numbers or missing."""
    if not isinstance(grades, list) or not all(isinstance(grade, dict) for grade in grades):
        return grades, []
    notes: list[str] = []
    read: list[dict[str, Any]] = []
    for grade in grades:
        scores = {name: grade.get(name) for name in ("format_score", "content_score")}
        lost = [name for name, score in scores.items() if isinstance(score, float) and not math.isfinite(score)]
        notes += ["not a number, hence a failed grading: grade"] * bool(lost)
        think = "" if grade.get("think") == _NOT_GRADED else grade.get("think", "")
        read.append({**grade, **dict.fromkeys(lost), "think": think})
    return read, notes
