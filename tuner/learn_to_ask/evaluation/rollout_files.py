"""Checks that rollouts and evaluations belong to the test set, before anything is paid for them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tuner.learn_to_ask.cli import check_output
from tuner.learn_to_ask.core.records import GradedTask, Task, TaskWithRollouts
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import Journal, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input

RecordT = TypeVar("RecordT", bound=TaskWithRollouts)

_FIELDS = ("messages", "decision_truth", "info_truth")  # what rollouts and grades depend on


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a task of the test set stands, and what it says: a digest for each of `_FIELDS`."""

    index: int
    line: int
    digests: tuple[str, ...]


def read_matching(test_file: Path, file: Path, record_type: type[RecordT]) -> Iterator[tuple[int, int, RecordT]]:
    """Yields index in the test set, line and record for everything in a rollout or evaluation file.

    Args:
        test_file: Tasks; its bad lines are passed over, as `roll_out` does.
        file: What was made of them.
        record_type: The record that each line of `file` must be.

    Raises:
        UserError: For the first line of `file` that is no such record or not about a task of the test set.
    """
    places = _places(test_file)
    report = ReadReport()
    for record in read_jsonl(file, record_type, unique_key="cid", report=report, strict=True):
        place = places.get(record.cid)
        if place is None:
            raise UserError(f"{file}:{report.line}: cid {record.cid!r} is not in --test_file_path {test_file}")
        for field, before, now in zip(_FIELDS, place.digests, _digests(record), strict=True):
            if before != now:
                raise UserError(
                    f"{file}:{report.line}: {field} of cid {record.cid!r} is not that of {test_file}:{place.line}; "
                    "name the test set it was made of, or --overwrite to start again"
                )
        yield place.index, report.line, record


def check_earlier_run(
    test_file: Path,
    rollout_file: Path,
    eval_file: Path,
    *,
    rollout_repeat: int,
    grade_repeat: int,
    max_missing: float,
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
        resume: Whether what is there is to be gone on with.
        overwrite: Whether it is to be replaced.

    Raises:
        UserError: When it is neither, or belongs to another test set or other settings.
    """
    require_input(test_file, "--test_file_path")
    if not resume:
        check_output(eval_file, "--eval_file_path", overwrite=overwrite)
    Journal.check_unfinished(eval_file, resume=resume, overwrite=overwrite)
    if resume and rollout_file.is_file():
        check_rollouts(test_file, rollout_file, repeat=rollout_repeat, max_missing=max_missing)
    if resume and eval_file.is_file():
        if not rollout_file.is_file():
            raise UserError(
                f"--eval_file_path {eval_file}: is complete, but --rollout_file_path {rollout_file}, which it grades, "
                "is not there; name that file, or --overwrite to start again"
            )
        check_evaluation(test_file, rollout_file, eval_file, grade_repeat=grade_repeat)


def check_rollouts(test_file: Path, rollout_file: Path, *, repeat: int, max_missing: float) -> None:
    """Checks a finished rollout file.

    Args:
        test_file: Tasks.
        rollout_file: `TaskWithRollouts`.
        repeat: Rollouts that each task must have.
        max_missing: Share of the tasks that may be missing.

    Raises:
        UserError: Naming the first line at fault.
    """
    present = set()
    for index, line, record in read_matching(test_file, rollout_file, TaskWithRollouts):
        present.add(index)
        if len(record.rollouts) != repeat:
            raise UserError(
                f"{rollout_file}:{line}: holds {len(record.rollouts)} rollouts, --rollout_repeat asks for {repeat}"
            )
    _check_missing(test_file, rollout_file, present, max_missing=max_missing)


def check_evaluation(test_file: Path, rollout_file: Path, eval_file: Path, *, grade_repeat: int) -> None:
    """Checks a finished evaluation file against the test set and the rollouts it grades.

    Raises:
        UserError: Naming the first line at fault.
    """
    rolled_out = {
        index: text_digest(repr(record.rollouts))
        for index, _, record in read_matching(test_file, rollout_file, TaskWithRollouts)
    }
    for index, line, record in read_matching(test_file, eval_file, GradedTask):
        place = f"{eval_file}:{line}"
        if rolled_out.pop(index, None) != text_digest(repr(record.rollouts)):
            raise UserError(
                f"{place}: cid {record.cid!r} has other rollouts in {rollout_file}; --overwrite grades again"
            )
        graded = 1 + max((len(more) for more in record.regrades), default=0)
        if (grade_repeat > 1 and not record.regrades) or graded not in (1, grade_repeat):
            raise UserError(f"{place}: was graded {graded} times, --grade_repeat asks for {grade_repeat}")
    if rolled_out:
        raise UserError(
            f"{eval_file}: lacks {len(rolled_out)} of the tasks in {rollout_file}; --overwrite grades them again"
        )


def _check_missing(test_file: Path, rollout_file: Path, present: set[int], *, max_missing: float) -> None:
    """Compares the tasks that are there with the test set."""
    places = _places(test_file)
    missing = [(cid, place) for cid, place in places.items() if place.index not in present]
    if len(missing) > max_missing * len(places):
        cid, place = missing[0]
        raise UserError(
            f"{rollout_file}: lacks {len(missing)} of {len(places)} tasks, the first {test_file}:{place.line} "
            f"(cid {cid!r}); raise --max_failures to evaluate without them, or --overwrite to roll out again"
        )


def _places(test_file: Path) -> dict[str, _Place]:
    """Where each `cid` of the test set is."""
    report = ReadReport()
    return {
        task.cid: _Place(index, report.line, _digests(task))
        for index, task in enumerate(
            read_jsonl(test_file, Task, unique_key="cid", report=report, strict=False, quiet=True)
        )
    }


def _digests(task: Task) -> tuple[str, ...]:
    """What a task says, short enough to keep for a whole test set."""
    return tuple(text_digest(repr(getattr(task, field))) for field in _FIELDS)
