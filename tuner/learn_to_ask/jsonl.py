"""Files of records in and out, JSON Lines or Parquet by their names: what is bad is named and counted."""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.keys import Keys
from tuner.learn_to_ask.parquet import count_rows, write_rows
from tuner.learn_to_ask.rows import BOM, RawRow, raw_rows
from tuner.learn_to_ask.storage import compressed, is_parquet, open_lines, whole_file

RecordT = TypeVar("RecordT", bound=BaseModel)

# Bad lines that are printed; the others are only counted.
SHOWN_BAD_LINES = 5
# Characters that some readers take for the end of a line, and surrogates that have no UTF-8 form.
_ESCAPED = re.compile("[\x7f\x85\u2028\u2029\ud800-\udfff]")


def dump_line(record: BaseModel | dict[str, Any]) -> str:
    """One record as one line of JSON, without the newline; readable, and safe for any line splitter."""
    value = record.model_dump(mode="python") if isinstance(record, BaseModel) else record
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def write_jsonl(
    path: Path, records: Iterable[BaseModel | dict[str, Any]], record_type: type[BaseModel] | None = None
) -> int:
    """Writes records beside `path` and moves them there when all are on the disk.

    Args:
        path: The file to write; its folder is created. `.parquet` is written as such, `.gz` and `.zst` are compressed
            JSON Lines, any other name plain ones.
        records: Consumed one by one.
        record_type: What they are: a Parquet file has its fields for columns. `None` where the records say it.

    Returns:
        How many records were written.

    Raises:
        UserError: When a Parquet file is to be made of what is no record of this project.
    """
    with whole_file(path) as file:
        if path.suffix == ".parquet":
            first = list(islice(records := iter(records), 1))
            kind = record_type or next((type(one) for one in first if isinstance(one, BaseModel)), None)
            if kind is None:
                raise UserError(f"{path}: is only written as JSON Lines; end it in .jsonl, .jsonl.gz or .jsonl.zst")
            return write_rows(file, chain(first, records), kind)
        return _write(file, path, ((dump_line(record) + "\n").encode() for record in records))


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """The same with records that are lines already, newlines included; never as Parquet."""
    with whole_file(path) as file:
        return _write(file, path, lines)


def _write(file: BinaryIO, path: Path, lines: Iterable[bytes]) -> int:
    """Writes lines as the name says, and counts them."""
    count = 0
    with compressed(file, path) as output:
        for line in lines:
            output.write(line)
            count += 1
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
        return _parse(text.removeprefix(BOM).decode(), nan=nan)
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
    """Yields the records of a file in order, one line or few rows in memory at a time.

    A line that is no JSON, not the schema, or repeats a key is counted and skipped, the first of them printed to stderr
    with file, line number and reason. Duplicates are found by their hashes, see `Keys`.

    Args:
        path: An existing file, see `require_input`: JSON Lines, plain or compressed by gzip or zstd, or Parquet.
        record_type: The record each line must be.
        unique_key: The field that no two records may share.
        report: Counts what happens; for the summary at the end.
        strict: A bad line is an error instead.
        quiet: Bad lines are skipped without a word, for a second pass over the same file.

    Raises:
        UserError: For the first bad line when `strict`, and for a file that is neither or damaged.
    """
    seen = Keys()
    for number, row in raw_rows(path, record_type, quiet=quiet):
        report.line = number
        try:
            record = parse_row(row, record_type)
        except LineError as bad:
            kind, reason = bad.kind, bad.reason
        else:
            key = getattr(record, unique_key)
            if seen.add(key):
                report.good += 1
                yield record
                continue
            kind, reason = f"duplicate {unique_key}", f"duplicate {unique_key} {key!r}"
        report.skip(f"{path}:{number}", kind, reason, strict=strict, quiet=quiet)
    if not quiet:
        report.say_how_many_more(path)


def parse_row(row: RawRow, record_type: type[RecordT]) -> RecordT:
    """What `raw_rows` yields as a record.

    Raises:
        LineError: When it is none.
    """
    if isinstance(row, bytes):
        return parse_line(row, record_type)
    record = as_record(row, record_type)
    for name, about in record_type.model_fields.items():
        if about.annotation is Any and not isinstance(value := row.get(name), str | None):
            _check_json(name, value)  # tables may hold dates and the like
    return record


def _check_json(name: str, value: object) -> None:
    """Makes sure that JSON has a form for a value.

    Raises:
        LineError: When it has none.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LineError(f"bad {name}", f"{name}: {error}") from error


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
    """Number of lines, or of rows, for progress bars."""
    if is_parquet(path):
        return count_rows(path)
    with open_lines(path) as file:
        return sum(1 for _ in file)
