"""Evaluation files for the tests of the report."""

import json

from tuner.learn_to_ask.core.records import GradedTask
from tuner.learn_to_ask.report.evaluation import EvaluationBuilder
from tuner.learn_to_ask.report.reading import by_session, collect_fields

STOP = "<stop />"
FAILED = {"think": "", "action_score": 1.0, "format_score": None, "content_score": None}
WRONG = {"think": "", "action_score": 0.0, "format_score": 0.0, "content_score": 0.0}


def grade(content, format_score, think="because"):
    """Of a right decision."""
    return {"think": think, "action_score": 1.0, "format_score": format_score, "content_score": content}


def asks(content, format_score, text="Is it dry?"):
    """A question where asking is right, with its grade."""
    return text, grade(content, format_score)


def record(cid, truth, *answers, **changes):
    """A line of an evaluation file; the turn in the `cid` says how long the context is, as in real files."""
    session, turn = cid.split("_")
    roles = ["user" if (int(turn) - index) % 2 == 0 else "assistant" for index in range(int(turn) + 1)]
    return {
        "cid": cid,
        "session_id": session,
        "diagn": "Cold",
        "messages": [{"role": role, "content": f"{role} {index} of {cid}"} for index, role in enumerate(roles)],
        "decision_truth": truth,
        "info_truth": "symptom: cough" if truth == "continue" else "",
        "rollouts": [text for text, _ in answers],
        "policy": "vllm:policy",
        "grades": [given for _, given in answers],
        "grader": "vllm:grader",
        "regrades": [],
        **changes,
    }


def write(path, records):
    """One record a line."""
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def evaluation(records, name="base"):
    """As it is read from a file."""
    builder = EvaluationBuilder()
    tasks = [GradedTask.model_validate(one) for one in records]
    for line, task in enumerate(tasks, start=1):
        builder.add(task, line=line, offset=line - 1)
    fields = collect_fields(by_session(builder.samples), tasks.__getitem__)
    return builder.build(name=name, path=f"{name}.jsonl", fields=fields, read=tasks.__getitem__)


RIGHT_STOP = (STOP, grade(1.0, 1.0, think=""))
INEXACT_STOP = (f"Goodbye {STOP}", grade(1.0, 0.0, think=""))
STOPPED = (STOP, WRONG)  # where asking was right
ASKED = ("Is it dry?", WRONG)  # where stopping was right
UNGRADED = ("Is it dry?", FAILED)
GOOD = record("1_0", "continue", asks(1.0, 1.0), asks(0.5, 1.0))

# Every branch of the scoring: 13 samples of 6 sessions, two rollouts each. In brackets the rewards.
HAND_CHECKED = [
    record("1_0", "continue", asks(1.0, 1.0), asks(0.5, 0.5)),  # a win (4), half (2.5)
    record("1_2", "continue", asks(0.0, 1.0), STOPPED),  # irrelevant (2), stopped too early (0)
    record("1_4", "stop", RIGHT_STOP, INEXACT_STOP),  # exact (4), with words around it (3)
    record("2_0", "continue", UNGRADED, asks(1.0, 0.5), session_id=2),  # left out, (3.5)
    record("2_2", "stop", ASKED, RIGHT_STOP, session_id=2),  # asked too long (0), (4)
    record("3_0", "continue", STOPPED, (f"Hm. {STOP}", WRONG), diagn="Flu"),  # (0), (0)
    record("3_2", "stop", ASKED, ASKED, diagn="Flu"),  # (0), (0)
    record("4_1", "continue", asks(0.5, 1.0), asks(0.5, 0.0), diagn=["Flu", 1]),  # doctor greets first: (3), (2)
    record("4_3", "stop", RIGHT_STOP, RIGHT_STOP, diagn=["Flu", 1]),  # (4), (4)
    record("5_0", "continue", UNGRADED, UNGRADED, diagn="Flu"),  # left out twice
    record("5_2", "continue", asks(1.0, 0.0), asks(0.0, 0.0), diagn="Flu"),  # (3), (1)
    record("5_4", "stop", (f" {STOP}", grade(1.0, 0.0)), ASKED, diagn="Flu"),  # a blank is not exact (3), (0)
    record("6_0", "continue", asks(1.0, 1.0), STOPPED, diagn=None),  # (4), (0)
]
