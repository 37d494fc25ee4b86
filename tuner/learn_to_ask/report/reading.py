"""Reads evaluation files and refuses those that are damaged, unfinished, or do not go together."""

from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.core.records import GradedTask
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import journal_path
from tuner.learn_to_ask.jsonl import LineError, parse_row
from tuner.learn_to_ask.keys import Keys
from tuner.learn_to_ask.report.evaluation import Evaluation, EvaluationBuilder, names_or_unknown
from tuner.learn_to_ask.rows import raw_rows

_RESUME = "finish it with 3_rollout_then_evaluate.py, the same flags and --resume"


def read_evaluation(path: Path, *, name: str) -> Evaluation:
    """Reads an evaluation file, one line or few rows in memory at a time.

    Args:
        path: Written by step 3.
        name: What the report calls it.

    Raises:
        UserError: When the file is missing, empty or unfinished, or for its first line that is no evaluation record
            or repeats a `cid`.
    """
    _require_finished(path)
    builder = EvaluationBuilder()
    seen = Keys()
    for number, row in progress(raw_rows(path, GradedTask), title=f"reading {name}", total=None, unit="samples"):
        try:
            record = parse_row(row, GradedTask)
        except LineError as error:
            if isinstance(row, bytes) and not row.endswith(b"\n"):
                raise UserError(
                    f"{path}:{number}: the evaluation is cut off here, in the middle of a line; copy the file again, "
                    f"or, if the evaluation was interrupted, {_RESUME}"
                ) from error
            raise UserError(f"{path}:{number}: {error.reason}; this is no line of a sound evaluation file") from error
        if not seen.add(record.cid):
            line = builder.samples[seen.find(record.cid)].line
            raise UserError(
                f"{path}:{number}: duplicate cid {record.cid!r}, also on line {line}; a sample may stand in an "
                "evaluation once"
            )
        if builder.domain not in (None, record.domain):
            raise UserError(
                f"{path}:{number}: is of domain {record.domain.name}, the lines before of another; an evaluation is of "
                "one domain"
            )
        builder.add(record, line=number)
    if not builder.samples:
        raise UserError(f"{path}: holds no sample; {_RESUME}")
    return builder.build(name=name, path=str(path))


def read_records(path: Path, lines: Collection[int]) -> dict[int, GradedTask]:
    """Line -> record of some lines of a file already read; few, for they are all in memory."""
    rows = raw_rows(path, GradedTask, quiet=True)
    last = max(lines, default=0)
    return {
        number: parse_row(row, GradedTask)
        for number, row in takewhile(lambda numbered: numbered[0] <= last, rows)
        if number in lines
    }


def check_comparable(
    evaluations: Sequence[Evaluation], *, allow_different_graders: bool, allow_different_sampling: bool
) -> None:
    """Makes sure that differences between evaluations come from the policies.

    Args:
        evaluations: The first is compared with every other.
        allow_different_graders: Whether different graders are no reason to refuse. A grader that a file does not
            name counts as different from one that is named, for nobody can tell; two unnamed ones do not.
        allow_different_sampling: The same for how the policies were sampled.

    Raises:
        UserError: When two evaluations share no sample, or differ in their domain, in the task behind a `cid`, in
            their grader or in their sampling.
    """
    first, *others = evaluations
    first_samples = {sample.cid: sample for sample in first.samples}
    for other in others:
        if first.domain != other.domain:
            raise UserError(
                f"{other.path}:1: is of domain {other.domain.name}, but {first.path}:1 of {first.domain.name}, or "
                "their stop tokens differ; compare evaluations of one domain"
            )
        common = [(first_samples[sample.cid], sample) for sample in other.samples if sample.cid in first_samples]
        if not common:
            raise UserError(
                f"{other.path}:1: no cid of this evaluation is in {first.path}; compare evaluations of one test set"
            )
        for left, right in common:
            if left.task != right.task:
                raise UserError(
                    f"{other.path}:{right.line}: cid {right.cid!r} is another task in {first.path}:{left.line} (its "
                    "session_id, messages, decision_truth or info_truth); evaluate both policies on the same test file"
                )
        if len({*first.graders, *other.graders}) > 1 and not allow_different_graders:
            raise UserError(
                f"{other.path}:1: graded by {names_or_unknown(other.graders)}, but {first.path}:1 by "
                f"{names_or_unknown(first.graders)}; grade both with the same grader, or pass "
                "--allow_different_graders to compare them all the same"
            )
        if len({*first.samplings, *other.samplings}) > 1 and not allow_different_sampling:
            raise UserError(
                f"{other.path}:1: sampled with {names_or_unknown(other.samplings)}, but {first.path}:1 with "
                f"{names_or_unknown(first.samplings)}; roll both out alike, or pass --allow_different_sampling to "
                "compare them all the same"
            )


def _require_finished(path: Path) -> None:
    """Refuses a file that is not there yet, or empty.

    Raises:
        UserError: Saying how to get it.
    """
    if not path.is_file():
        journal = journal_path(path)
        if journal.exists():
            raise UserError(f"{path}: the evaluation is unfinished, {journal} holds what is done; {_RESUME}")
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
