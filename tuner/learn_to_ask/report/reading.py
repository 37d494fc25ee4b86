"""Reads evaluation files and refuses those that do not go together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.core.records import GradedTask, RecordDomain
from tuner.learn_to_ask.domains import load_domain, shipped
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.report.evaluation import (
    EvaluatedSample,
    Evaluation,
    EvaluationBuilder,
    baseline,
    names_or_unknown,
)
from tuner.learn_to_ask.report.field_columns import FieldColumns
from tuner.learn_to_ask.report.sound_file import EVALUATION, SoundFile


def read_evaluation(path: Path, *, name: str) -> Evaluation:
    """Reads an evaluation file, one line in memory at a time, and once more by session.

    Args:
        path: Written by step 3.
        name: What the report calls it.

    Raises:
        UserError: When the file is not sound, see `sound_file`.
    """
    builder = EvaluationBuilder()
    file = SoundFile(EVALUATION, path)
    for number, offset, record in file.records(title=f"reading {name}"):
        builder.add(record, line=number, offset=offset)
    fields = collect_fields(
        progress(by_session(builder.samples), title=f"reading the questions of {name}", total=None, unit="sessions"),
        lambda position: file.read(builder.samples[position].offset),
        excluded=_excluded(builder.domain),
    )
    return builder.build(name=name, path=str(path), fields=fields, read=file.read)


def _excluded(domain: RecordDomain | None) -> str:
    """What never counts as information, of a domain that comes with the package; of others the file does not tell."""
    return load_domain(domain.name).information.excluded if domain and domain.name in shipped() else ""


def by_session(samples: Sequence[EvaluatedSample]) -> Iterator[list[int]]:
    """For each session the positions of its samples, the longest context first."""
    members: dict[str, list[int]] = {}
    for position, sample in enumerate(samples):
        members.setdefault(sample.session_id, []).append(position)
    for positions in members.values():
        yield sorted(positions, key=lambda position: -samples[position].depth)


def collect_fields(
    sessions: Iterable[Sequence[int]], read: Callable[[int], GradedTask], *, excluded: str = ""
) -> FieldColumns:
    """Which fields rollouts ask for, two records in memory at a time.

    Args:
        sessions: Of `by_session`.
        read: Gives the record of the sample at a position.
        excluded: What never counts as information in the domain, in words.
    """
    columns = FieldColumns(excluded=excluded)
    for longest, *others in sessions:
        record = read(longest)
        dialogue = record.messages
        columns.add(record, longest, dialogue)
        for position in others:
            columns.add(read(position), position, dialogue)
    return columns


def check_comparable(
    evaluations: Sequence[Evaluation], *, allow_different_graders: bool, allow_different_sampling: bool
) -> None:
    """Makes sure that differences between evaluations come from the policies.

    Args:
        evaluations: The first of a policy is compared with every other.
        allow_different_graders: Whether different graders are no reason to refuse. A grader that a file does not
            name counts as different from one that is named, for nobody can tell; two unnamed ones do not.
        allow_different_sampling: The same for how the policies were sampled.

    Raises:
        UserError: When two evaluations share no sample, or differ in their domain, in the task behind a `cid`, in
            their grader or in their sampling.
    """
    first = baseline(evaluations)
    others = [evaluation for evaluation in evaluations if evaluation is not first]
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
        sampled_alike = other.reference or len({*first.samplings, *other.samplings}) == 1
        if not sampled_alike and not allow_different_sampling:
            raise UserError(
                f"{other.path}:1: sampled with {names_or_unknown(other.samplings)}, but {first.path}:1 with "
                f"{names_or_unknown(first.samplings)}; roll both out alike, or pass --allow_different_sampling to "
                "compare them all the same"
            )
