"""Puts the outputs of shards together in the order of the input, and makes sure that nothing is missing or twice."""

import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from tuner.learn_to_ask.cli import EXIT_DONE, check_output, print_summary, progress
from tuner.learn_to_ask.core.records import GradedTask, Interview, Sample, Session, Task, TaskWithRollouts
from tuner.learn_to_ask.core.segmentation import turn_indices
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import file_digest, journal_path
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input, write_jsonl
from tuner.learn_to_ask.keys import Keys
from tuner.learn_to_ask.shards import ShardNote, note_path, read_note, settings_apart, shard_number

_RECORDS: dict[str, type[BaseModel]] = {
    each.__name__: each for each in (Sample, TaskWithRollouts, GradedTask, Interview)
}
# What all shards must say alike though no fingerprint of theirs holds it: who rolled out, for instance, of grades.
_ALIKE = ("policy", "sampling", "sampling_applied", "grader", "user", "domain")


def merge_shards(*, shard_files: list[Path], input_file: Path, output_file: Path, overwrite: bool) -> int:
    """Writes what a run without shards would have written.

    Args:
        shard_files: The outputs of all shards of one run, in any order, each with its note.
        input_file: What they were made of.
        output_file: Gets all records, in the order of the input.
        overwrite: Replace an existing output.

    Returns:
        The exit code.

    Raises:
        UserError: When the shards do not go together, or lack what a finished run would have.
    """
    started = time.monotonic()
    require_input(input_file, "--input_file")
    check_output(output_file, "--output_file", overwrite=overwrite)
    if output_file.resolve() in [path.resolve() for path in (input_file, *shard_files)]:
        raise UserError(f"--output_file {output_file}: is read by this merge; name another file")
    notes = [_note_of(file) for file in shard_files]
    _check_notes(shard_files, notes, input_file)
    record_type = _RECORDS[notes[0].record]
    by_number = sorted(zip(shard_files, notes, strict=True), key=lambda pair: pair[1].shard)
    shards = [_Shard(file, note, record_type) for file, note in by_number]
    written = write_jsonl(output_file, _in_order(shards, input_file, record_type), record_type)
    note_path(output_file).unlink(missing_ok=True)  # of a shard that was there before
    left_out = sum(note.left_out for note in notes)
    print_summary(
        f"merged: {output_file}",
        [("shards", len(shards)), ("records", written), *([("left out by the run", left_out)] if left_out else [])],
        started=started,
    )
    return EXIT_DONE


def _note_of(file: Path) -> ShardNote:
    """The note of a shard that is finished.

    Raises:
        UserError: When it is not.
    """
    journal = journal_path(file)
    if journal.exists():
        raise UserError(
            f"{file}: is unfinished, {journal} holds what is done; finish it with the same flags and --resume"
        )
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    note = read_note(file)
    if note is None:
        raise UserError(
            f"{file}: {note_path(file)}, which says which shard it is, is not there; copy it along, or, if this is the "
            "output of no --shard, leave it out"
        )
    if note.record not in _RECORDS:
        raise UserError(f"{note_path(file)}: record: {note.record!r} is none of {', '.join(_RECORDS)}")
    return note


def _check_notes(files: list[Path], notes: list[ShardNote], input_file: Path) -> None:
    """Makes sure that these are the shards of one run, each once and all of them.

    Raises:
        UserError: Naming the first that does not fit.
    """
    first_file, first = files[0], notes[0]
    seen: dict[int, Path] = {}
    for file, note in zip(files, notes, strict=True):
        if note.of != first.of:
            raise UserError(f"{file}: is shard {note}, but {first_file} is shard {first}; merge shards of one number N")
        if note.shard in seen:
            raise UserError(f"{file}: is shard {note}, as {seen[note.shard]} is; name each shard once")
        seen[note.shard] = file
        if note.record != first.record:
            raise UserError(f"{file}: holds {note.record} records, but {first_file} {first.record}; merge one sort")
        if apart := settings_apart(first.settings, note.settings):
            raise UserError(f"{file}: comes from other settings than {first_file}: {apart}; run one of them again")
    missing = [f"{number}/{first.of}" for number in range(1, first.of + 1) if number not in seen]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"{first_file}: shard {', '.join(missing[:5])}{more} is missing; name the files of all {first.of}"
        )
    made_of, given = first.settings.get("input"), file_digest(input_file)
    if made_of != given:
        raise UserError(
            f"--input_file {input_file}: the shards were made of another file (digest {made_of}, not {given}); "
            "name the --input_file or --test_file_path that they were made of"
        )


class _Shard:
    """A shard's output that is read along with the input."""

    def __init__(self, file: Path, note: ShardNote, record_type: type[BaseModel]) -> None:
        self.file, self.note, self.key = file, note, _key_of(record_type)
        self.missing, self.first_missing = 0, ""
        self.report = ReadReport()
        self._records = read_jsonl(file, record_type, unique_key=self.key, report=self.report, strict=True)
        self.ahead: BaseModel | None = next(self._records, None)

    def take(self, key: str) -> BaseModel | None:
        """The record of a key whose turn it is, `None` when the shard lacks it."""
        record = self.ahead
        if record is None or getattr(record, self.key) != key:
            self.missing += 1
            self.first_missing = self.first_missing or key
            return None
        self.ahead = next(self._records, None)
        return record

    def check_end(self) -> None:
        """Makes sure that all of the shard was taken, and that it lacks what its run left out and nothing else.

        Raises:
            UserError: Otherwise.
        """
        if self.ahead is not None:
            raise UserError(
                f"{self.file}:{self.report.line}: {self.key} {getattr(self.ahead, self.key)!r} is not in shard "
                f"{self.note} of the input, or stands at another place there; copy the file again from its run"
            )
        if (self.report.good, self.missing) != (self.note.records, self.note.left_out):
            first = f", the first {self.key} {self.first_missing!r}" if self.missing else ""
            raise UserError(
                f"{self.file}: holds {self.report.good} records and lacks {self.missing}{first}, but its run wrote "
                f"{self.note.records} and left out {self.note.left_out}; copy the file again from its run"
            )


def _in_order(shards: list[_Shard], input_file: Path, record_type: type[BaseModel]) -> Iterator[BaseModel]:
    """The records of all shards, the first shard first, in the order of what they were made of.

    Raises:
        UserError: When they say that they were made differently, or a shard is not what its note says.
    """
    alike: tuple[object, ...] | None = None
    keys = progress(_keys(input_file, record_type), title="merging", total=None, unit="records")
    for key, session_id in keys:
        shard = shards[shard_number(session_id, len(shards)) - 1]
        line = shard.report.line
        record = shard.take(key)
        if record is None:
            continue
        said = tuple(getattr(record, name, None) for name in _ALIKE)
        alike = alike or said
        for name, here, there in zip(_ALIKE, said, alike, strict=True):
            if here != there:
                raise UserError(
                    f"{shard.file}:{line}: {name} is {here}, of other records it is {there}; run them alike"
                )
        yield record
    for shard in shards:
        shard.check_end()


def _keys(input_file: Path, record_type: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Key and session of every record that a run without failures writes, in its order."""
    if record_type is Sample:
        for session in read_jsonl(input_file, Session, unique_key="session_id", report=ReadReport(), quiet=True):
            for index in turn_indices(session.messages):
                yield f"{session.session_id}_{index}", session.session_id
    elif record_type is Interview:
        seen = Keys()
        for sample in read_jsonl(input_file, Sample, unique_key="cid", report=ReadReport(), quiet=True):
            if seen.add(sample.session_id):
                yield sample.session_id, sample.session_id
    else:
        for task in read_jsonl(input_file, Task, unique_key="cid", report=ReadReport(), quiet=True):
            yield task.cid, task.session_id


def _key_of(record_type: type[BaseModel]) -> str:
    """The field that no two records share."""
    return "session_id" if record_type is Interview else "cid"
