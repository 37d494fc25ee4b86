"""Keeps finished results on the disk as they come, so that a killed run pays for nothing twice."""

import fcntl
import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import dump_line, write_jsonl, write_lines

_SYNC_EVERY_BYTES = 1 << 20
# How a result's line begins, see `append`; what follows is the record, and the brace that closes the line.
_ENTRY = re.compile(rb'\{"index": (\d+), "failed": (\d+), "record": (?=\{)')
# So many bytes at the end are looked at closely on resume: what a crash damaged was not on the disk yet.
_DOUBTFUL_BYTES = 4 * _SYNC_EVERY_BYTES


class Journal:
    """The results of an unfinished run, beside its output, in the order in which they came.

    The first line is a fingerprint of everything the results depend on; every other line is one result
    with its index in the input. A line that a crash cut off is dropped on resume. Memory: 8 bytes a result.
    """

    def __init__(self, output: Path, *, fingerprint: Mapping[str, str], resume: bool, overwrite: bool) -> None:
        """Opens the journal of an output, new or to be continued.

        Args:
            output: The file the run is going to write.
            fingerprint: What the results depend on, name -> value.
            resume: Continue an unfinished run, if there is one.
            overwrite: Drop an unfinished run, if there is one.

        Raises:
            UserError: When an unfinished run is neither to be continued nor dropped, depends on something
                else, or is still running.
        """
        self.output = output
        self.fingerprint = dict(fingerprint)
        self.path = journal_path(output)
        self._offsets = array("q")
        self._unsynced = 0
        self.failed = 0  # answers given up in all results, those of earlier runs included
        output.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self.path.open("a+b")
        try:
            self._open(self.fingerprint, resume=resume, overwrite=overwrite)
        except BaseException:
            self._file.close()
            raise
        self.resumed = self.results

    def _open(self, fingerprint: dict[str, str], *, resume: bool, overwrite: bool) -> None:
        """Locks the file, then continues, drops or refuses what it holds."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: another run is writing it; wait for it or name another output") from None
        if overwrite or not _holds_results(self._file):
            self._file.truncate(0)
        unfinished = self.path.stat().st_size > 0
        if unfinished and not resume:
            raise UserError(_unfinished(self.path))
        if not (unfinished and self._read(fingerprint)):
            self._write({"fingerprint": fingerprint})

    @staticmethod
    def check_unfinished(output: Path, *, resume: bool, overwrite: bool) -> None:
        """Says before anything is loaded what opening the journal would say after.

        Raises:
            UserError: When an unfinished run is neither to be continued nor dropped.
        """
        path = journal_path(output)
        if path.exists() and not resume and not overwrite:
            with path.open("rb") as file:
                if _holds_results(file):
                    raise UserError(_unfinished(path))

    def done(self, index: int) -> bool:
        """Whether the result with this index is on the disk."""
        return index < len(self._offsets) and self._offsets[index] >= 0

    @property
    def results(self) -> int:
        """How many are on the disk."""
        return sum(offset >= 0 for offset in self._offsets)

    def forget(self, index: int) -> None:
        """Has this run make a result anew; until it does, the file keeps what it has for the next `--resume`."""
        if self.done(index):
            self._offsets[index] = -1

    def record(self, index: int) -> dict[str, Any]:
        """The result with this index, which is `done`; leaves the end of the file as the place to write on."""
        self._file.seek(self._offsets[index])
        record: dict[str, Any] = json.loads(self._file.readline())["record"]
        self._file.seek(0, os.SEEK_END)
        return record

    def append(self, index: int, record: BaseModel, *, failed: int = 0) -> None:
        """Writes one result; from here on it survives the process, within a megabyte also the machine.

        Args:
            index: Position in the input.
            record: The result.
            failed: How many answers in it were given up.
        """
        self._note(index, self._file.tell())
        self._write({"index": index, "failed": int(failed), "record": record.model_dump()})
        self.failed += failed

    def finish(self, count: int, record_type: type[BaseModel] | None = None) -> int:
        """Writes the output, in input order, and removes the journal.

        Args:
            count: Number of indices of the run; those without a result are left out.
            record_type: What the results are; needed for an output in Parquet.

        Returns:
            How many records the output holds.
        """
        if self.output.suffix == ".parquet":
            written = write_jsonl(self.output, (json.loads(line) for line in self._lines(count)), record_type)
        else:
            written = write_lines(self.output, self._lines(count))
        self.path.unlink()
        self._file.close()
        return written

    def drop(self) -> None:
        """Removes the journal: there is nothing in it to go on with."""
        self.path.unlink()
        self._file.close()

    def close(self) -> None:
        """Leaves the journal for a later `--resume`."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _lines(self, count: int) -> Iterator[bytes]:
        """The results in input order, read back one by one, as they stand in an output."""
        for index in range(min(count, len(self._offsets))):
            if self._offsets[index] >= 0:
                self._file.seek(self._offsets[index])
                yield _record_in(self._file.readline())

    def _note(self, index: int, offset: int) -> None:
        """Remembers where a result starts."""
        if index >= len(self._offsets):
            self._offsets.extend([-1] * (index + 1 - len(self._offsets)))
        self._offsets[index] = offset

    def _write(self, line: dict[str, Any]) -> None:
        """Appends a line and hands it to the operating system, now and then to the disk."""
        data = (dump_line(line) + "\n").encode()
        self._file.write(data)
        self._file.flush()
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_EVERY_BYTES:
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def _read(self, fingerprint: dict[str, str]) -> bool:
        """Indexes an unfinished run and cuts off what a crash left incomplete.

        Returns:
            False when not even the fingerprint made it to the disk.
        """
        doubtful = self._file.seek(0, os.SEEK_END) - _DOUBTFUL_BYTES
        self._file.seek(0)
        end = 0
        for number, line in enumerate(iter(self._file.readline, b"")):
            entry = (_sound_entry(line) if end + len(line) < doubtful else None) or _complete_entry(line)
            if entry is None:
                break
            if number == 0:
                self._compare(entry["fingerprint"], fingerprint)
            else:
                self._note(entry["index"], end)
                self.failed += entry["failed"]
            end += len(line)
        self._file.truncate(end)
        self._file.seek(end)
        return end > 0

    def _compare(self, before: dict[str, str], now: dict[str, str]) -> None:
        """Refuses to mix results that depend on different things."""
        if changed := differences(before, now):
            raise UserError(
                f"{self.path}: cannot resume, the unfinished run differs: {changed}. Use the former "
                "settings, or --overwrite to start again"
            )


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What an earlier run depended on and this one does not, for a message; `""` when they are the same."""
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return "; ".join(f"{key} was {before.get(key)}, is now {now.get(key)}" for key in changed)


def journal_path(output: Path) -> Path:
    """Where the journal of an output is."""
    return output.with_name(f"{output.name}.journal")


def _holds_results(file: BinaryIO) -> bool:
    """Whether a fingerprint and at least one result are there; less is not worth keeping."""
    file.seek(0)
    file.readline()
    return file.readline().endswith(b"\n")


def _unfinished(path: Path) -> str:
    """What to do about an unfinished run."""
    return (
        f"{path}: an unfinished run left its results here; pass --resume to continue it or --overwrite to start again"
    )


def _record_in(line: bytes) -> bytes:
    """The record in a result's line as a line of its own."""
    if begins := _ENTRY.match(line):
        return line[begins.end() : -2] + b"\n"
    return (dump_line(json.loads(line)["record"]) + "\n").encode()  # of an earlier version


def _sound_entry(line: bytes) -> dict[str, Any] | None:
    """What a line that reached the disk says of its result, without reading the result; `None` for any other line."""
    begins = _ENTRY.match(line)
    if not begins or not line.endswith(b"}}\n") or b"\0" in line:
        return None
    return {"index": int(begins[1]), "failed": int(begins[2])}


def _complete_entry(line: bytes) -> dict[str, Any] | None:
    """The line as an entry, `None` if it was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def file_digest(path: Path) -> str:
    """A short digest of a file's bytes, for fingerprints."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def text_digest(text: str) -> str:
    """A short digest of a text, for fingerprints."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
