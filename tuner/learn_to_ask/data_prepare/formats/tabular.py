"""Reads tables with a message in each row from CSV and Parquet, a few rows at a time."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.data_prepare.formats.rows import Row
from tuner.learn_to_ask.data_prepare.formats.table import Columns
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport
from tuner.learn_to_ask.parquet import iter_rows, parquet_file

_SEPARATORS = {",": ",", ";": ";", "\t": "\\t", "|": "|"}


@dataclass(frozen=True, slots=True)
class Tabular:
    """What a table looks like.

    Attributes:
        columns: Their names.
        separator: Between the columns of a CSV.
    """

    columns: Columns
    separator: str


def csv_rows(
    lines: Iterator[tuple[int, bytes]], table: Tabular, report: ReadReport, *, path: Path, strict: bool
) -> Iterator[Row]:
    """Yields the rows of a CSV, their values as text; texts in quotes may have line breaks.

    Args:
        lines: Number and bytes of every line.
        table: What it looks like.
        report: Counts the rows that have too many or too few fields.
        path: Where the lines come from.
        strict: Such a row is an error instead.

    Raises:
        UserError: When a column is missing or the file is not UTF-8.
    """
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # the rows below name it
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number}: not UTF-8; convert it (GB18030? iconv -f GB18030 -t UTF-8)"
                ) from error

    reader = csv.reader(texts(), delimiter=table.separator, strict=True)
    header: list[str] | None = None
    while True:
        place = f"{path}:{number + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            reason = f"bad CSV: {error}; a quote that is never closed? Nothing up to line {number} could be used"
            report.skip(place, "bad CSV", reason, strict=strict or header is None)
            continue
        if fields is None:
            return
        if header is None:
            header = fields
            _check_header(header, table, path)
        elif fields and len(fields) != len(header):
            reason = f"{len(fields)} fields instead of {len(header)}; text with a separator in it needs quotes"
            report.skip(place, "wrong number of fields", reason, strict=strict)
        elif fields:
            yield Row(place, "", dict(zip(header, fields, strict=True)))


def parquet_rows(path: Path, table: Tabular | None) -> Iterator[Row]:
    """Yields the rows of a Parquet file.

    Args:
        path: An existing file.
        table: What it looks like, `None` for one with a whole chat in each row.

    Raises:
        UserError: When it is damaged or a column is missing.
    """
    with parquet_file(path) as file:
        names = file.schema_arrow.names
        if table is not None:
            _check_names(names, table, path)
        wanted = [name for name in names if table is None or name in (*table.columns.names, "diagn")]
        for number, value in enumerate(iter_rows(file, wanted)):
            yield Row(f"{path} row {number}", f"{path.stem}-{number}", value)


def _check_header(header: list[str], table: Tabular, path: Path) -> None:
    """Makes sure that the columns are there once, and that the header is cut at the right separator.

    Raises:
        UserError: Otherwise.
    """
    if len(header) == 1:
        for other, shown in _SEPARATORS.items():
            if other in header[0]:
                raise UserError(f"{path}:1: its columns are separated by '{shown}'; pass --separator '{shown}'")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}:1: has two columns {twice!r}; rename one")
    _check_names(header, table, path)


def _check_names(names: Sequence[Any], table: Tabular, path: Path) -> None:
    """Makes sure that the columns are there.

    Raises:
        UserError: Otherwise.
    """
    flags = dict(zip(("session", "role", "text", "time"), table.columns.names, strict=False))
    for flag, name in flags.items():
        if name not in names:
            there = ", ".join(map(repr, names[:20]))
            raise UserError(f"{path}: has no column {name!r}; name it with --{flag}_column, there are: {there}")
