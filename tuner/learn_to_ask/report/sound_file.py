"""Reads a finished JSON Lines file record by record, and refuses it at the first line that is not sound."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from tuner.learn_to_ask.cli import progress
from tuner.learn_to_ask.core.records import GradedTask, Interview
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import journal_path
from tuner.learn_to_ask.jsonl import LineError, parse_line

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

    def lines(self, path: Path, *, title: str) -> Iterator[tuple[int, int, RecordT]]:
        """Every record with its line, counted from 1, and its offset in bytes, one in memory at a time.

        Args:
            path: Of the file.
            title: Stands before the progress bar.

        Raises:
            UserError: When the file is missing, empty or unfinished, or for its first line that is no such record,
                repeats a key or is of another domain than those before.
        """
        self._require_finished(path)
        line_of: dict[str, int] = {}
        domain = None
        for number, offset, line in progress(_lines(path), title=title, total=None, unit=f"{self.unit}s"):
            try:
                record = parse_line(line, self.record)
            except LineError as error:
                if not line.endswith(b"\n"):
                    raise UserError(
                        f"{path}:{number}: the {self.name} is cut off here, in the middle of a line; copy the file "
                        f"again, or, if the {self.name} was interrupted, {self.finish}"
                    ) from error
                raise UserError(f"{path}:{number}: {error.reason}; this is no line of a sound {self.name}") from error
            key: str = getattr(record, self.key)
            if key in line_of:
                raise UserError(
                    f"{path}:{number}: duplicate {self.key} {key!r}, also on line {line_of[key]}; a {self.unit} may "
                    f"stand in an {self.name} once"
                )
            if domain not in (None, record.domain):
                raise UserError(
                    f"{path}:{number}: is of domain {record.domain.name}, the lines before of another; an "
                    f"{self.name} is of one domain"
                )
            line_of[key], domain = number, record.domain
            yield number, offset, record
        if not line_of:
            raise UserError(f"{path}: holds no {self.unit}; {self.finish}")

    def read(self, path: Path, offset: int) -> RecordT:
        """The record that starts at some byte of a file already read."""
        with path.open("rb") as file:
            return self.read_at(file, offset)

    def read_at(self, file: BinaryIO, offset: int) -> RecordT:
        """The record that starts at some byte of an open file."""
        file.seek(offset)
        return parse_line(file.readline(), self.record)

    def _require_finished(self, path: Path) -> None:
        """Refuses a file that is not there yet, or empty.

        Raises:
            UserError: Saying how to get it.
        """
        if not path.is_file():
            journal = journal_path(path)
            if journal.exists():
                raise UserError(f"{path}: the {self.name} is unfinished, {journal} holds what is done; {self.finish}")
            raise UserError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")


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


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of every line that is not blank."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, offset, line
            offset += len(line)
