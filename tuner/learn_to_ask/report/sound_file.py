"""Reads a finished file record by record, whatever its format, refuses it at the first that is not sound, and again."""

import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar, cast

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.core.records import GradedTask, Interview
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import journal_path
from tuner.learn_to_ask.jsonl import LineError, parse_line, parse_row
from tuner.learn_to_ask.keys import Keys
from tuner.learn_to_ask.rows import raw_rows

RecordT = TypeVar("RecordT", GradedTask, Interview)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind(Generic[RecordT]):
    """What a file holds, and how its faults are told.

    Attributes:
        record: Type of its lines.
        key: The attribute that no two lines may share.
        name: What the file is, after "an".
        unit: What a line is.
        finish: How one that was interrupted is finished.
    """

    record: type[RecordT]
    key: str
    name: str
    unit: str
    finish: str


EVALUATION = FileKind(
    record=GradedTask,
    key="cid",
    name="evaluation",
    unit="sample",
    finish="finish it with 3_rollout_then_evaluate.py, the same flags and --resume",
)
INTERVIEWS = FileKind(
    record=Interview,
    key="session_id",
    name="interview file",
    unit="session",
    finish="finish it with tuner.learn_to_ask.evaluation.interview, the same flags and --resume",
)


class SoundFile(Generic[RecordT]):
    """A finished file, read once in order and then at will, one record in memory at a time.

    The records are copied to a temporary file, in which they can be found again whatever the format.
    """

    def __init__(self, kind: FileKind[RecordT], path: Path) -> None:
        """Looks whether there is a finished file.

        Args:
            kind: What it holds.
            path: Plain, compressed or Parquet.

        Raises:
            UserError: When it is missing, empty or unfinished, saying how to get it.
        """
        self._kind: FileKind[RecordT] = kind
        self._path = path
        if not path.is_file():
            journal = journal_path(path)
            if journal.exists():
                raise UserError(f"{path}: the {kind.name} is unfinished, {journal} holds what is done; {kind.finish}")
            raise UserError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        self._copy = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115, closed with this object

    def records(self, *, title: str) -> Iterator[tuple[int, int, RecordT]]:
        """Every record with its line or row, counted from 1, and the offset by which `read` finds it.

        Args:
            title: Stands before the progress bar.

        Raises:
            UserError: For the first line that is no such record, repeats a key or is of another domain than those
                before, or when there is none.
        """
        kind, path = self._kind, self._path
        seen, lines = Keys(), array("Q")
        domain = None
        for number, row in progress(raw_rows(path, kind.record), title=title, total=None, unit=f"{kind.unit}s"):
            try:
                record = parse_row(row, kind.record)
            except LineError as error:
                if isinstance(row, bytes) and not row.endswith(b"\n"):
                    raise UserError(
                        f"{path}:{number}: the {kind.name} is cut off here, in the middle of a line; copy the file "
                        f"again, or, if the {kind.name} was interrupted, {kind.finish}"
                    ) from error
                raise UserError(f"{path}:{number}: {error.reason}; this is no line of a sound {kind.name}") from error
            key: str = getattr(record, kind.key)
            if not seen.add(key):
                raise UserError(
                    f"{path}:{number}: duplicate {kind.key} {key!r}, also on line {lines[seen.find(key)]}; a "
                    f"{kind.unit} may stand in an {kind.name} once"
                )
            lines.append(number)
            if domain not in (None, record.domain):
                raise UserError(
                    f"{path}:{number}: is of domain {record.domain.name}, the lines before of another; an "
                    f"{kind.name} is of one domain"
                )
            domain = record.domain
            offset = self._copy.tell()
            self._copy.write(row.rstrip(b"\n") if isinstance(row, bytes) else record.model_dump_json().encode())
            self._copy.write(b"\n")
            yield number, offset, record
        if not lines:
            raise UserError(f"{path}: holds no {kind.unit}; {kind.finish}")

    def read(self, offset: int) -> RecordT:
        """The record at an offset of one that was read before."""
        self._copy.seek(offset)
        record: RecordT = parse_line(self._copy.readline(), self._kind.record)
        return record
