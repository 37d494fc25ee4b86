"""JSON Lines in and out: bad lines are named and counted, files appear whole or not at all."""

import gzip
import io
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pydantic import BaseModel, ValidationError

from tuner.learn_to_ask.errors import UserError

RecordT = TypeVar("RecordT", bound=BaseModel)

# Bad lines that are printed; the others are only counted.
SHOWN_BAD_LINES = 5
_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_HEAD_BYTES = 1 << 16
# Characters that some readers take for the end of a line, and surrogates that have no UTF-8 form.
_ESCAPED = re.compile("[\x7f\x85\u2028\u2029\ud800-\udfff]")


def dump_line(record: BaseModel | dict[str, Any]) -> str:
    """One record as one line of JSON, without the newline; readable, and safe for any line splitter."""
    value = record.model_dump(mode="python") if isinstance(record, BaseModel) else record
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def write_jsonl(path: Path, records: Iterable[BaseModel | dict[str, Any]]) -> int:
    """Writes records beside `path` and moves them there when all are on the disk.

    Args:
        path: The file to write; its folder is created.
        records: Consumed one by one.

    Returns:
        How many records were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(dump_line(record) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


def write_text(path: Path, text: str) -> None:
    """Writes a small file so that a kill leaves the old one or the new one; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@dataclass
class ReadReport:
    """What became of the lines of a file.

    Attributes:
        good: Lines that were read as records.
        bad: Reason -> number of lines skipped for it.
        line: Number of the line that was read last.
    """

    good: int = 0
    line: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def skip(self, place: str, kind: str, reason: str, *, strict: bool, quiet: bool = False) -> None:
        """Counts what cannot be used, and prints the first of it to stderr.

        Args:
            place: Where it stands, `file:line`.
            kind: What sort of fault it is, for counting.
            reason: What exactly, for reading.
            strict: It is an error instead.
            quiet: It is only counted.

        Raises:
            UserError: When `strict`.
        """
        if strict:
            raise UserError(f"{place}: {reason}")
        self.bad[kind] += 1
        if not quiet and self.skipped <= SHOWN_BAD_LINES:
            print(f"{place}: skipped: {reason}", file=sys.stderr)

    def say_how_many_more(self, path: Path, unit: str = "lines") -> None:
        """Prints how many were skipped without being named, if any."""
        if self.skipped > SHOWN_BAD_LINES:
            print(f"{path}: skipped: {self.skipped - SHOWN_BAD_LINES} more {unit}", file=sys.stderr)

    def too_many_bad(self, max_share: float) -> bool:
        """Whether more than this share of the lines could not be used."""
        return self.skipped > max_share * (self.good + self.skipped)

    @property
    def skipped(self) -> int:
        """How many lines were skipped."""
        return self.bad.total()

    @property
    def skipped_rows(self) -> list[tuple[str, int]]:
        """Label and value of every reason, for a summary."""
        return [(f"skipped: {reason}", lines) for reason, lines in sorted(self.bad.items())]


class LineError(Exception):
    """A line that is not the record it should be.

    Attributes:
        kind: What sort of fault it is, for counting.
        reason: What exactly, for reading.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def parse_line(line: bytes, record_type: type[RecordT]) -> RecordT:
    """One line of a file as a record.

    Args:
        line: As it stands in the file; a byte order mark, as joined files have it in between, is passed over.
        record_type: The record it must be.

    Raises:
        LineError: When it is no UTF-8, no JSON, or not the schema.
    """
    return as_record(parse_json(line), record_type)


def parse_json(text: bytes, *, nan: bool = False) -> Any:
    """A line, or a whole file, as what its JSON says; see `parse_line`.

    Args:
        text: As it stands in the file.
        nan: `NaN` and `Infinity`, which Python's own writer makes of such numbers, are read as such.

    Raises:
        LineError: When it is no UTF-8 or no JSON.
    """
    try:
        return _parse(text.removeprefix(_BOM).decode(), nan=nan)
    except (ValueError, RecursionError) as error:
        raise LineError(*_explain(error)) from error


def as_record(value: object, record_type: type[RecordT]) -> RecordT:
    """What some JSON says as a record.

    Raises:
        LineError: When it is not the schema.
    """
    try:
        return record_type.model_validate(value)
    except (ValueError, RecursionError) as error:
        raise LineError(*_explain(error)) from error


def read_jsonl(
    path: Path,
    record_type: type[RecordT],
    *,
    unique_key: str,
    report: ReadReport,
    strict: bool = False,
    quiet: bool = False,
) -> Iterator[RecordT]:
    """Yields the records of a file in order, one line in memory at a time.

    A line that is no JSON, not the schema, or repeats a key is counted and skipped, the first of them printed to stderr
    with file, line number and reason. Duplicates are found by a 64-bit hash a record, about 60 bytes.

    Args:
        path: An existing file, see `require_input`; one that gzip or zstd has compressed is read.
        record_type: The record each line must be.
        unique_key: The field that no two records may share.
        report: Counts what happens; for the summary at the end.
        strict: A bad line is an error instead.
        quiet: Bad lines are skipped without a word, for a second pass over the same file.

    Raises:
        UserError: For the first bad line when `strict`, and for a file that is no JSON Lines at all.
    """
    seen: set[int] = set()
    _refuse_other_formats(path)
    with open_lines(path) as file:
        for number, line in enumerate(file, start=1):
            report.line = number
            if not line.strip(b" \t\r\n\0"):  # a crash leaves zeros at the end of a file
                continue
            try:
                record = parse_line(line, record_type)
            except LineError as bad:
                kind, reason = bad.kind, bad.reason
            else:
                key = getattr(record, unique_key)
                fingerprint = hash(key)
                if fingerprint not in seen:
                    seen.add(fingerprint)
                    report.good += 1
                    yield record
                    continue
                kind, reason = f"duplicate {unique_key}", f"duplicate {unique_key} {key!r}"
            report.skip(f"{path}:{number}", kind, reason, strict=strict, quiet=quiet)
    if not quiet:
        report.say_how_many_more(path)


def open_lines(path: Path) -> BinaryIO:
    """Opens a file for reading line by line, decompressed where gzip or zstd has written it."""
    with path.open("rb") as file:
        head = file.read(len(_ZSTD))
    if head.startswith(_GZIP):
        return cast("BinaryIO", gzip.open(path, "rb"))
    if head == _ZSTD:
        import zstandard

        return cast("BinaryIO", io.BufferedReader(zstandard.open(path, "rb")))
    return path.open("rb")


def _refuse_other_formats(path: Path) -> None:
    """Names a file that is something else than JSON Lines.

    Raises:
        UserError: Saying how to convert it.
    """
    with open_lines(path) as file:
        head = file.read(_HEAD_BYTES)
    lines = "one JSON object a line is wanted"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    text = head.removeprefix(_BOM).lstrip()
    if text.startswith(b"["):
        raise UserError(f"{path}: is one JSON array, {lines}; convert it: jq -c '.[]'")
    if text.startswith(b"{") and not text.partition(b"\n")[0].strip()[1:]:
        raise UserError(f"{path}: its JSON is pretty-printed over several lines, {lines}; convert it: jq -c .")


def _parse(line: str, *, nan: bool = False) -> Any:
    """Strict JSON: numbers that become `Infinity`, half surrogate pairs and, unless `nan`, `NaN` are refused."""

    def constant(name: str) -> float:
        if nan:
            return float(name)
        raise ValueError(f"{name} is no JSON value")

    def finite(number: str) -> float:
        value = float(number)
        if math.isinf(value):
            raise ValueError(f"{number} is too large")
        return value

    value = json.loads(line, parse_constant=constant, parse_float=finite)
    if "\\ud" in line.lower():
        # Half a surrogate pair has no UTF-8 form: no tokenizer and no server could take it.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _explain(error: ValueError | RecursionError) -> tuple[str, str]:
    """The kind of a bad line, for counting, and its reason, for reading."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        message = first["msg"].removeprefix("Value error, ")
        return f"bad {first['loc'][0] if first['loc'] else 'record'}", f"{where}: {message}"
    if isinstance(error, json.JSONDecodeError):
        return "not JSON", f"not JSON: {error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8", f"not UTF-8: {error.reason} at byte {error.start} (GB18030? iconv -f GB18030 -t UTF-8)"
    if isinstance(error, UnicodeEncodeError):
        return "not Unicode", "not Unicode: half a surrogate pair"
    return "not JSON", f"not JSON: {error}"


def require_input(path: Path, flag: str) -> Path:
    """Checks that an input file is there and holds something.

    Raises:
        UserError: Naming the flag, otherwise.
    """
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{flag} {path}: the file is empty")
    return path


def count_lines(path: Path) -> int:
    """Number of lines, for progress bars."""
    with open_lines(path) as file:
        return sum(1 for _ in file)
