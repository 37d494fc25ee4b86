"""One evaluation as columns: what the statistics need of its records, without their texts."""

import json
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.learn_to_ask.core.records import GradedTask, Message, RecordDomain, SamplingValues
from tuner.learn_to_ask.evaluation.bootstrap import FloatArray, IntArray
from tuner.learn_to_ask.evaluation.logged_reference import is_reference
from tuner.learn_to_ask.evaluation.metrics import METRICS, scored_rollouts
from tuner.learn_to_ask.report.field_columns import FieldColumns

SCORES = ("format_score", "content_score")  # those that a grader gives
NO_DIAGNOSIS = "(none)"


@dataclass(frozen=True, slots=True)
class EvaluatedSample:
    """What is remembered of a record.

    Attributes:
        cid: Of the sample.
        session_id: Of its session.
        line: Where it stands in the file, counted from 1.
        offset: By which it can be read again.
        task: A hash of what was asked of the policy and the grader; the same task has the same hash in one process.
        should_stop: Whether `decision_truth` is `stop`.
        diagnosis: For showing.
        depth: How often the patient has spoken, see `patient_turns`.
        rollouts: How many there are.
        failed: How many of them have no grader's scores.
    """

    cid: str
    session_id: str
    line: int
    offset: int
    task: int
    should_stop: bool
    diagnosis: str
    depth: int
    rollouts: int
    failed: int


@dataclass
class Evaluation:
    """An evaluation file, read.

    Attributes:
        name: What the report calls it.
        path: Of the file, for showing.
        policies: Every `policy` its records name, `""` for those that name none.
        graders: Every `grader`, likewise.
        samplings: Every `sampling_applied`, as text.
        domain: Of all its records.
        samples: In the order of the file.
        sample: For each rollout the position of its sample.
        stopped: For each rollout, whether it stopped.
        values: For each rollout what it adds to each of `METRICS`, NaN where a metric is not about it or its
            grading failed.
        ratings: Score -> grades of rollouts graded more than once, shape (rollouts, grades), padded with NaN.
        fields: Which fields the rollouts ask for.
        read: Gives the record at an offset.
    """

    name: str
    path: str
    policies: list[str]
    graders: list[str]
    samplings: list[str]
    domain: RecordDomain
    samples: list[EvaluatedSample]
    sample: IntArray
    stopped: npt.NDArray[np.bool_]
    values: FloatArray
    ratings: dict[str, FloatArray]
    fields: FieldColumns
    read: Callable[[int], GradedTask]

    @property
    def reference(self) -> bool:
        """Whether the rollouts are the logged expert's own messages."""
        return is_reference(self.policies)


@dataclass
class EvaluationBuilder:
    """Takes records one by one and forgets their texts."""

    samples: list[EvaluatedSample] = field(default_factory=list)
    domain: RecordDomain | None = None
    _policies: set[str] = field(default_factory=set)
    _graders: set[str] = field(default_factory=set)
    _samplings: set[str] = field(default_factory=set)
    _sample: list[int] = field(default_factory=list)
    _stopped: list[bool] = field(default_factory=list)
    _values: "array[float]" = field(default_factory=lambda: array("d"))
    _ratings: dict[str, list[list[float]]] = field(default_factory=lambda: {score: [] for score in SCORES})

    def add(self, record: GradedTask, *, line: int, offset: int) -> None:
        """Takes the next record of a file.

        Args:
            record: With unique `cid`.
            line: Where it stands, counted from 1.
            offset: By which it can be read again.
        """
        scored = scored_rollouts(record)
        for rollout in scored:
            self._sample.append(len(self.samples))
            self._stopped.append(rollout.decision == "stop")
            self._values.extend(_number(metric.value(rollout)) for metric in METRICS.values())
        for grade, regrades in zip(record.grades, record.regrades, strict=False):
            if regrades:
                for score, rows in self._ratings.items():
                    rows.append([_number(getattr(one, score)) for one in (grade, *regrades)])
        self.domain = record.domain
        self._policies.add(record.policy)
        self._graders.add(record.grader)
        self._samplings.add(sampling_label(record.sampling_applied))
        self.samples.append(
            EvaluatedSample(
                cid=record.cid,
                session_id=record.session_id,
                line=line,
                offset=offset,
                task=_task_hash(record),
                should_stop=record.decision_truth == "stop",
                diagnosis=diagnosis_label(record.diagn),
                depth=patient_turns(record.messages),
                rollouts=len(record.rollouts),
                failed=len(record.rollouts) - sum(rollout.reward is not None for rollout in scored),
            )
        )

    def build(self, *, name: str, path: str, fields: FieldColumns, read: Callable[[int], GradedTask]) -> Evaluation:
        """All that was taken, as columns, which fields the rollouts ask for, and what reads a record again."""
        return Evaluation(
            name=name,
            path=path,
            policies=sorted(self._policies),
            graders=sorted(self._graders),
            samplings=sorted(self._samplings),
            domain=self.domain or RecordDomain(),
            samples=self.samples,
            sample=np.array(self._sample, dtype=np.int64),
            stopped=np.array(self._stopped, dtype=np.bool_),
            values=np.array(self._values).reshape(-1, len(METRICS)),
            ratings={score: _padded(rows) for score, rows in self._ratings.items()},
            fields=fields,
            read=read,
        )


def baseline(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The one that the others are compared with: the first of a policy, the first where there is none."""
    return next((evaluation for evaluation in evaluations if not evaluation.reference), evaluations[0])


def patient_turns(messages: list[Message]) -> int:
    """Turn depth: how often the patient has spoken in the context, consecutive messages counting once."""
    roles = [message["role"] for message in messages]
    return sum(role == "user" != before for before, role in zip([None, *roles], roles, strict=False))


def diagnosis_label(diagn: Any) -> str:
    """A diagnosis as it is shown: text as it stands, other JSON as JSON, `NO_DIAGNOSIS` for nothing."""
    label = diagn if isinstance(diagn, str) else json.dumps(diagn, ensure_ascii=False, sort_keys=True)
    label = " ".join(label.split())
    return NO_DIAGNOSIS if diagn is None or not label else label


def sampling_label(sampling: SamplingValues | None) -> str:
    """How rollouts were sampled, for showing; `""` where a file does not say."""
    if sampling is None:
        return ""
    return ", ".join(f"{name} {'?' if value is None else f'{value:g}'}" for name, value in sampling)


def names_or_unknown(names: Iterable[str]) -> str:
    """Policies or graders for showing; one that a file does not name is unknown."""
    return ", ".join(name or "unknown" for name in names)


def _task_hash(record: GradedTask) -> int:
    """A hash of everything two evaluations must have in common to be compared on a sample."""
    messages = tuple((message["role"], message["content"]) for message in record.messages)
    return hash((record.session_id, messages, record.decision_truth, record.info_truth))


def _number(value: float | None) -> float:
    """A value as columns hold it: NaN for none."""
    return math.nan if value is None else value


def _padded(rows: list[list[float]]) -> FloatArray:
    """Rows of any length as a matrix."""
    width = max(map(len, rows), default=0)
    return np.array([row + [np.nan] * (width - len(row)) for row in rows], dtype=np.float64).reshape(len(rows), width)
