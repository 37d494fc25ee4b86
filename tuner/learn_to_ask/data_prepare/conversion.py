"""Converts files: rows in, records out, and a count of everything that was not taken."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary, progress
from tuner.learn_to_ask.core.records import Sample
from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles
from tuner.learn_to_ask.data_prepare.formats.files import Reading, input_files, read_rows
from tuner.learn_to_ask.data_prepare.formats.rows import Outcome, PassedOver, Refused, Row
from tuner.learn_to_ask.data_prepare.formats.select import FORMATS, Format, looks_like
from tuner.learn_to_ask.data_prepare.formats.spool import by_session
from tuner.learn_to_ask.data_prepare.formats.table import TableRow, from_table, has_columns, table_row
from tuner.learn_to_ask.data_prepare.formats.tabular import Tabular
from tuner.learn_to_ask.data_prepare.formats.upstream_samples import to_processed
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import LineError, ReadReport, read_jsonl, require_input, write_jsonl


@dataclass
class _Import:
    """One import: what to do, and what came of it so far.

    Attributes:
        known: The format of the input.
        path: A file, or a folder of files.
        files: Those.
        roles: Of the log.
        table: What a flat table looks like.
        strict: A bad row is an error.
        rows: How many were read.
        others: Rows by the other format that they look like, `""` for none.
        notes: What was left out or changed, and how often.
        report: What became records, and what was skipped.
    """

    known: Format
    path: Path
    files: list[Path]
    roles: Roles
    table: Tabular
    strict: bool
    rows: int = 0
    others: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    report: ReadReport = field(default_factory=ReadReport)

    def records(self) -> Iterator[BaseModel]:
        """The records of all files, none of them twice.

        Raises:
            UserError: When there is none.
        """
        seen: set[int] = set()
        for outcome in progress(self._outcomes(), title="converting", total=None, unit=self.known.makes):
            if isinstance(outcome, PassedOver):
                self.notes[f"passed over: {outcome.kind}"] += 1
            elif isinstance(outcome, Refused):
                self._skip(outcome.place, outcome.kind, outcome.reason)
            else:
                key = getattr(outcome.record, self.known.key)
                if hash(key) in seen:
                    self._skip(outcome.place, f"duplicate {self.known.key}", f"duplicate {self.known.key} {key!r}")
                    continue
                seen.add(hash(key))
                self.report.good += 1
                self.notes.update(outcome.notes)
                yield outcome.record
        self.report.say_how_many_more(self.path, unit="rows")
        if not self.report.good:
            raise UserError(self._why_nothing())

    def _outcomes(self) -> Iterator[Outcome]:
        if self.known.convert is not None:
            return self.known.convert(self._rows(), self.roles)
        rows = progress(self._table_rows(), title="sorting", total=None, unit="rows")
        return from_table(by_session(rows), self.roles)

    def _rows(self) -> Iterator[Row]:
        """The rows that look like the format."""
        table = self.table if self.known.convert is None else None
        reading = Reading(strict=self.strict, nan=self.known.nan, is_row=self.known.looks, table=table)
        for file in self.files:
            for row in read_rows(file, reading, self.report):
                self.rows += 1
                if self.known.looks(row.value) or (table and has_columns(row.value, table.columns)):
                    yield row
                    continue
                other = looks_like(row.value)
                self.others[other or ""] += 1
                kind = f"looks like {other}" if other else f"none of the {self.known.what}"
                self._skip(row.place, kind, f"is none of the {self.known.what}" + (f", {kind}" if other else ""))

    def _table_rows(self) -> Iterator[TableRow]:
        for row in self._rows():
            try:
                yield table_row(row, self.table.columns)
            except LineError as error:
                self._skip(row.place, error.kind, error.reason)

    def _skip(self, place: str, kind: str, reason: str) -> None:
        """Names and counts what cannot be used; see `ReadReport.skip`."""
        self.report.skip(place, kind, reason, strict=self.strict)

    def _why_nothing(self) -> str:
        """What to say when nothing could be used."""
        other = next((name for name, _ in self.others.most_common(1) if name), None)
        if other:
            return f"{self.path}: holds no {self.known.what}; it looks like {FORMATS[other].what}: pass --from {other}"
        why = "; the lines above say why" if self.report.skipped else ""
        return f"{self.path}: holds no usable {self.known.what}{why}"


def import_logs(
    *,
    source: str,
    input_path: Path,
    output_file: Path,
    roles: Roles,
    table: Tabular,
    strict: bool,
    overwrite: bool,
    max_bad_lines: float,
) -> int:
    """Writes our records of a file in another format.

    Args:
        source: A name in `FORMATS`.
        input_path: A file, or a folder of files that are read as one.
        output_file: Records, one a line.
        roles: Of the log.
        table: What a flat table looks like; other formats ignore it.
        strict: A bad row is an error instead of skipped.
        overwrite: Replace an existing output.
        max_bad_lines: Share of unusable rows that is still a success.

    Returns:
        The exit code.

    Raises:
        UserError: When nothing can be used.
    """
    started = time.monotonic()
    files = input_files(input_path)
    check_output(output_file, "OUT", overwrite=overwrite)
    if input_path.is_dir() and output_file.parent.resolve() == input_path.resolve():
        raise UserError(f"OUT {output_file}: lies in the folder that is read; name another place")
    job = _Import(FORMATS[source], input_path, files, roles, table, strict)
    written = write_jsonl(output_file, job.records())
    print_summary(
        f"converted: {output_file}",
        [("rows", job.rows), *job.report.skipped_rows, *sorted(job.notes.items()), (job.known.makes, written)],
        started=started,
    )
    return EXIT_FAILURES if job.report.too_many_bad(max_bad_lines) else EXIT_DONE


def export_samples(*, input_file: Path, output_file: Path, strict: bool, overwrite: bool, max_bad_lines: float) -> int:
    """Writes samples of script 1 as the published step B reads them.

    Args:
        input_file: Samples of our step A. Sessions, tasks, rollouts and evaluations need no conversion: the published
            scripts read ours.
        output_file: One sample a line.
        strict: A bad line is an error instead of skipped.
        overwrite: Replace an existing output.
        max_bad_lines: Share of unusable lines that is still a success.

    Returns:
        The exit code.

    Raises:
        UserError: When nothing can be used.
    """
    started = time.monotonic()
    require_input(input_file, "IN")
    check_output(output_file, "OUT", overwrite=overwrite)
    report = ReadReport()
    failed = 0

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal failed
        samples: Iterable[Sample] = read_jsonl(input_file, Sample, unique_key="cid", report=report, strict=strict)
        for sample in progress(samples, title="converting", total=None, unit="samples"):
            try:
                line = to_processed(sample)
            except LineError as error:
                report.good -= 1
                report.skip(f"{input_file}:{report.line}", error.kind, error.reason, strict=strict)
                continue
            failed += sample.info_set is None
            yield line
        if not report.good:
            raise UserError(
                f"{input_file}: holds no sample of script 1 that can be converted; sessions, tasks, rollouts and "
                "evaluations need no conversion, the published scripts read them as they are"
            )

    written = write_jsonl(output_file, lines())
    rows: list[tuple[str, object]] = [("samples", report.good + report.skipped), *report.skipped_rows]
    rows += [("extraction failed, written as []", failed)] if failed else []
    print_summary(f"converted: {output_file}", [*rows, ("written", written)], started=started)
    return EXIT_FAILURES if report.too_many_bad(max_bad_lines) else EXIT_DONE
