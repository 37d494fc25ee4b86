"""Checks that rollouts and evaluations belong to the test set, before anything is paid for them."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from tuner.learn_to_ask.cli import check_output
from tuner.learn_to_ask.core.records import GradedTask, Task, TaskWithRollouts
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import Journal, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, require_input
from tuner.learn_to_ask.keys import Keys
from tuner.learn_to_ask.shards import Shard, check_same_shard, in_shard

RecordT = TypeVar("RecordT", bound=TaskWithRollouts)

_FIELDS = ("messages", "decision_truth", "info_truth")  # what rollouts and grades depend on


class _TestSet:
    """Where each task of the test set stands and what it says, in some 60 bytes a task.

    Of the fields that rollouts and grades depend on, 64-bit digests are kept.
    """

    def __init__(self, file: Path, shard: Shard | None) -> None:
        """Reads those of a shard, all without; bad lines are passed over, as `roll_out` does."""
        self.cids = Keys()
        self.indices, self.lines, self.digests = array("Q"), array("Q"), array("Q")
        report = ReadReport()
        tasks = read_jsonl(file, Task, unique_key="cid", report=report, strict=False, quiet=True)
        for index, task in enumerate(tasks):
            if in_shard(task.session_id, shard):
                self.cids.add(task.cid)
                self.indices.append(index)
                self.lines.append(report.line)
                self.digests.extend(_digests(task))

    def __len__(self) -> int:
        return len(self.cids)

    def digests_of(self, place: int) -> "array[int]":
        """Of one task."""
        return self.digests[len(_FIELDS) * place : len(_FIELDS) * (place + 1)]


def read_matching(
    test_file: Path, file: Path, record_type: type[RecordT], shard: Shard | None = None
) -> Iterator[tuple[int, int, RecordT]]:
    """Yields index in the test set, line and record for everything in a rollout or evaluation file.

    Args:
        test_file: Tasks; its bad lines are passed over, as `roll_out` does.
        file: What was made of them.
        record_type: The record that each line of `file` must be.
        shard: Of the test set; all without.

    Raises:
        UserError: For the first line of `file` that is no such record or not about a task of the test set.
    """
    tests = _TestSet(test_file, shard)
    report = ReadReport()
    for record in read_jsonl(file, record_type, unique_key="cid", report=report, strict=True):
        place = tests.cids.find(record.cid)
        if place < 0:
            part = f"shard {shard} of " if shard else ""
            raise UserError(f"{file}:{report.line}: cid {record.cid!r} is not in {part}--test_file_path {test_file}")
        for field, before, now in zip(_FIELDS, tests.digests_of(place), _digests(record), strict=True):
            if before != now:
                raise UserError(
                    f"{file}:{report.line}: {field} of cid {record.cid!r} is not that of "
                    f"{test_file}:{tests.lines[place]}; name the test set it was made of, or --overwrite to start again"
                )
        yield tests.indices[place], report.line, record


def count_tasks(test_file: Path, shard: Shard | None) -> int:
    """How many tasks of the test set are in a shard."""
    tasks = read_jsonl(test_file, Task, unique_key="cid", report=ReadReport(), quiet=True)
    return sum(in_shard(task.session_id, shard) for task in tasks)


def check_earlier_run(
    test_file: Path,
    rollout_file: Path,
    eval_file: Path,
    *,
    rollout_repeat: int,
    grade_repeat: int,
    max_missing: float,
    shard: Shard | None = None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Looks at what is at the places of the outputs before any model is loaded.

    Args:
        test_file: Tasks.
        rollout_file: To be written, or to be kept on resume.
        eval_file: The same.
        rollout_repeat: Rollouts that each task must have.
        grade_repeat: Gradings that each rollout must have.
        max_missing: Share of the tasks that rollouts may lack.
        shard: Of the test set; all without.
        resume: Whether what is there is to be gone on with.
        overwrite: Whether it is to be replaced.

    Raises:
        UserError: When it is neither, or belongs to another test set or other settings.
    """
    require_input(test_file, "--test_file_path")
    if resume:
        check_same_shard(rollout_file, "--rollout_file_path", shard)
        check_same_shard(eval_file, "--eval_file_path", shard)
    else:
        check_output(eval_file, "--eval_file_path", overwrite=overwrite)
    Journal.check_unfinished(eval_file, resume=resume, overwrite=overwrite)
    if resume and rollout_file.is_file():
        check_rollouts(test_file, rollout_file, repeat=rollout_repeat, max_missing=max_missing, shard=shard)
    if resume and eval_file.is_file():
        if not rollout_file.is_file():
            raise UserError(
                f"--eval_file_path {eval_file}: is complete, but --rollout_file_path {rollout_file}, which it grades, "
                "is not there; name that file, or --overwrite to start again"
            )
        check_evaluation(test_file, rollout_file, eval_file, grade_repeat=grade_repeat, shard=shard)


def check_rollouts(
    test_file: Path, rollout_file: Path, *, repeat: int, max_missing: float, shard: Shard | None = None
) -> None:
    """Checks a finished rollout file.

    Args:
        test_file: Tasks.
        rollout_file: `TaskWithRollouts`.
        repeat: Rollouts that each task must have.
        max_missing: Share of the tasks that may be missing.
        shard: Of the test set; all without.

    Raises:
        UserError: Naming the first line at fault.
    """
    present = bytearray(count_lines(test_file))
    for index, line, record in read_matching(test_file, rollout_file, TaskWithRollouts, shard):
        present[index] = True
        if len(record.rollouts) != repeat:
            raise UserError(
                f"{rollout_file}:{line}: holds {len(record.rollouts)} rollouts, --rollout_repeat asks for {repeat}"
            )
    _check_missing(test_file, rollout_file, present, max_missing=max_missing, shard=shard)


def check_evaluation(
    test_file: Path, rollout_file: Path, eval_file: Path, *, grade_repeat: int, shard: Shard | None = None
) -> None:
    """Checks a finished evaluation file against the test set and the rollouts it grades.

    Raises:
        UserError: Naming the first line at fault.
    """
    rolled_out = array("Q", bytes(8)) * count_lines(test_file)  # a digest by index, 0 for none
    for index, _, record in read_matching(test_file, rollout_file, TaskWithRollouts, shard):
        rolled_out[index] = _digest(record.rollouts)
    for index, line, record in read_matching(test_file, eval_file, GradedTask, shard):
        place = f"{eval_file}:{line}"
        before, rolled_out[index] = rolled_out[index], 0
        if before != _digest(record.rollouts):
            raise UserError(
                f"{place}: cid {record.cid!r} has other rollouts in {rollout_file}; --overwrite grades again"
            )
        graded = 1 + max((len(more) for more in record.regrades), default=0)
        if (grade_repeat > 1 and not record.regrades) or graded not in (1, grade_repeat):
            raise UserError(f"{place}: was graded {graded} times, --grade_repeat asks for {grade_repeat}")
    if lacking := sum(map(bool, rolled_out)):
        raise UserError(f"{eval_file}: lacks {lacking} of the tasks in {rollout_file}; --overwrite grades them again")


def _check_missing(
    test_file: Path, rollout_file: Path, present: bytearray, *, max_missing: float, shard: Shard | None
) -> None:
    """Compares the tasks that are there, by index, with the test set."""
    tasks = missing = 0
    first = ""
    report = ReadReport()
    for index, task in enumerate(read_jsonl(test_file, Task, unique_key="cid", report=report, quiet=True)):
        if in_shard(task.session_id, shard):
            tasks += 1
            missing += not present[index]
            first = first or ("" if present[index] else f"{test_file}:{report.line} (cid {task.cid!r})")
    if missing > max_missing * tasks:
        raise UserError(
            f"{rollout_file}: lacks {missing} of {tasks} tasks, the first {first}; raise --max_failures to evaluate "
            "without them, or --overwrite to roll out again"
        )


def _digests(task: Task) -> list[int]:
    """What a task says, short enough to keep for a whole test set."""
    return [_digest(getattr(task, field)) for field in _FIELDS]


def _digest(value: object) -> int:
    """64 bits of a value's text, never 0."""
    return int(text_digest(repr(value)), 16) or 1
