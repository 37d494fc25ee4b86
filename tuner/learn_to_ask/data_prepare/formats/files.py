"""Reads the rows of a file, whatever holds them: JSON Lines, whole JSON, CSV or Parquet."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.data_prepare.formats.rows import Row
from tuner.learn_to_ask.data_prepare.formats.tabular import Tabular, csv_rows, parquet_rows
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import LineError, ReadReport, parse_json
from tuner.learn_to_ask.storage import is_parquet, open_lines

# Bytes that may be in memory at once: of a line, or of a file that is not one value a line.
LARGEST = 128 << 20
_HEAD = 1 << 16
_BLANK = b" \t\r\n\0"
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"\s*")
_OTHER = {b"PK\x03\x04": "a ZIP archive or an Excel workbook", b"SQLite format": "an SQLite database", b"%PDF": "a PDF"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read.

    Attributes:
        strict: A row that cannot be read is an error.
        nan: `NaN` in JSON is read as such.
        is_row: Whether an array is one row; the items of any other are a row each.
        table: What a flat table looks like, `None` where none is wanted.
    """

    strict: bool
    nan: bool
    is_row: Callable[[Any], bool]
    table: Tabular | None


def input_files(path: Path) -> list[Path]:
    """The files of an input: itself, or all in a folder that are not hidden, by name.

    Raises:
        UserError: When there is none.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        if not files:
            raise UserError(f"IN {path}: the folder holds no file")
        return files
    if not path.is_file():
        raise UserError(f"IN {path}: no such file")
    return [path]


def read_rows(path: Path, reading: Reading, report: ReadReport) -> Iterator[Row]:
    """Yields the rows of a file in their order; of JSON Lines, CSV and Parquet a few are in memory at a time.

    Args:
        path: An existing file; gzip and zstd are read.
        reading: How.
        report: Counts the rows that cannot be read.

    Raises:
        UserError: When it is empty, none of the formats, or too large for the memory.
    """
    with open_lines(path) as file:
        head = file.read(_HEAD)
    text = head.removeprefix(_BOM).lstrip(_BLANK)
    if not text:
        raise UserError(f"{path}: the file is empty")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    for magic, name in _OTHER.items():
        if head.startswith(magic):
            raise UserError(f"{path}: is {name}; export it as CSV, Parquet or JSON Lines")
    if is_parquet(path):
        yield from parquet_rows(path, reading.table)
    elif text.startswith((b"{", b"[")):
        yield from _json_rows(path, reading, report)
    elif reading.table is None:
        raise UserError(f"{path}: is no JSON; if it is a table with a message in each row, pass --from table")
    else:
        yield from csv_rows(_lines(path), reading.table, report, path=path, strict=reading.strict)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every line.

    Raises:
        UserError: For a line that is too long to be held.
    """
    number = 0
    with open_lines(path) as file:
        while line := file.readline(LARGEST):
            number += 1
            if len(line) == LARGEST and not line.endswith(b"\n"):
                raise UserError(
                    f"{path}:{number}: the line is longer than {LARGEST >> 20} MiB, one row a line is wanted; "
                    "convert an array: jq -c '.[]'"
                )
            yield number, line


def _json_rows(path: Path, reading: Reading, report: ReadReport) -> Iterator[Row]:
    """The rows of a JSON file; what is alone in its file is called after it."""
    stem = Path(path.name.removesuffix(".gz").removesuffix(".zst")).stem
    values = _values(path, reading, report)
    first, second = next(values, None), next(values, None)
    ahead = [item for item in (first, second) if item is not None]
    for place, number, value in chain(ahead, values):
        yield from _expanded(place, stem if second is None else f"{stem}-{number}", value, reading)


def _expanded(place: str, name: str, value: Any, reading: Reading) -> Iterator[Row]:
    """A value as a row, or the items of an array as rows."""
    if not isinstance(value, list) or reading.is_row(value):
        yield Row(place, name, value)
        return
    for index, item in enumerate(value):
        yield Row(f"{place}[{index}]", f"{name}-{index}", item)


def _values(path: Path, reading: Reading, report: ReadReport) -> Iterator[tuple[str, int, Any]]:
    """Place, number and value of all that a file holds: one a line, or pretty-printed one after the other."""
    whole = _whole_values(path, nan=reading.nan)
    if whole is not None:
        yield from ((str(path) if len(whole) == 1 else f"{path}#{n}", n, value) for n, value in enumerate(whole, 1))
        return
    for number, line in _lines(path):
        if not line.strip(_BLANK):  # a crash leaves zeros at the end of a file
            continue
        place = f"{path}:{number}"
        try:
            yield place, number, parse_json(line.strip(b"\0"), nan=reading.nan)
        except LineError as error:
            report.skip(place, error.kind, error.reason, strict=reading.strict)


def _whole_values(path: Path, *, nan: bool) -> list[Any] | None:
    """The values of a file whose first line is none, `None` for a file with a value in each line.

    Raises:
        UserError: When the file is too large for that, or no JSON.
    """
    first = next(text for _, line in _lines(path) if (text := line.removeprefix(_BOM).strip(_BLANK)))
    try:
        parse_json(first, nan=nan)
        return None
    except LineError:
        pass
    is_whole = first.startswith(b"[") or first == b"{"  # else it may be a bad line among good ones
    with open_lines(path) as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        if is_whole:
            raise UserError(
                f"{path}: is JSON over several lines and larger than {LARGEST >> 20} MiB, one row a line is "
                "wanted; convert it: jq -c '.[]' for an array, jq -c . otherwise"
            )
        return None
    text = text.removeprefix(_BOM).strip(_BLANK)
    try:
        return [parse_json(text, nan=nan)]
    except LineError as error:
        values = _one_after_the_other(text, nan=nan)
        if values is None and is_whole:
            raise UserError(f"{path}: {error.reason}; the file is JSON over several lines, and damaged") from error
        return values


def _one_after_the_other(text: bytes, *, nan: bool) -> list[Any] | None:
    """The JSON values that follow each other in a text, `None` when something else is among them."""
    values: list[Any] = []
    decoder, end = json.JSONDecoder(), 0
    try:
        rest = text.decode()
        while end < len(rest):
            start = end
            _, end = decoder.raw_decode(rest, start)
            values.append(parse_json(rest[start:end].encode(), nan=nan))
            end = _SPACE.match(rest, end).end()  # type: ignore[union-attr]  # it always matches
    except (ValueError, RecursionError, LineError):
        return None
    return values
