"""Converts files: rows in, records out, and a count of everything that was not taken."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
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
from tuner.learn_to_ask.data_prepare.formats.table import TableRow, from_table, table_row
from tuner.learn_to_ask.data_prepare.formats.tabular import Tabular
from tuner.learn_to_ask.data_prepare.formats.upstream import to_processed
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import LineError, ReadReport, read_jsonl, require_input, write_jsonl


class _Import:
    """One import: its settings and its counts."""

    def __init__(self, format: Format, path: Path, *, roles: Roles, table: Tabular, strict: bool) -> None:
        self.format, self.path, self.roles, self.table, self.strict = format, path, roles, table, strict
        self.report = ReadReport()
        self.rows = 0
        self.others: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def records(self) -> Iterator[BaseModel]:
        """The records of all files, none of them twice.

        Raises:
            UserError: When there is none.
        """
        seen: set[int] = set()
        for outcome in progress(self._outcomes(), title="converting", total=None, unit=self.format.makes):
            if isinstance(outcome, PassedOver):
                self.notes[f"passed over: {outcome.kind}"] += 1
            elif isinstance(outcome, Refused):
                self.skip(outcome.place, outcome.kind, outcome.reason)
            else:
                key = getattr(outcome.record, self.format.key)
                if hash(key) in seen:
                    self.skip(outcome.place, f"duplicate {self.format.key}", f"duplicate {self.format.key} {key!r}")
                    continue
                seen.add(hash(key))
                self.report.good += 1
                self.notes.update(outcome.notes)
                yield outcome.record
        self.report.say_how_many_more(self.path, unit="rows")
        if not self.report.good:
            raise UserError(self._nothing())

    def skip(self, place: str, kind: str, reason: str) -> None:
        """Names and counts what cannot be used; see `ReadReport.skip`."""
        self.report.skip(place, kind, reason, strict=self.strict)

    def _outcomes(self) -> Iterator[Outcome]:
        if self.format.convert is not None:
            return self.format.convert(self._rows(), self.roles)
        return from_table(
            by_session(progress(self._table_rows(), title="sorting", total=None, unit="rows")), self.roles
        )

    def _rows(self) -> Iterator[Row]:
        """The rows that look like the format."""
        is_table = self.format.convert is None
        reading = Reading(
            strict=self.strict, nan=self.format.nan, is_row=self.format.looks, table=self.table if is_table else None
        )
        for file in input_files(self.path):
            for row in read_rows(file, reading, self.report):
                self.rows += 1
                if self.format.looks(row.value):
                    yield row
                    continue
                other = looks_like(row.value)
                self.others[other or ""] += 1
                kind = f"looks like {other}" if other else f"not {self.format.what}"
                self.skip(row.place, kind, f"is none of the {self.format.what}" + (f", {kind}" if other else ""))

    def _table_rows(self) -> Iterator[TableRow]:
        for row in self._rows():
            try:
                yield table_row(row, self.table.columns)
            except LineError as error:
                self.skip(row.place, error.kind, error.reason)

    def _nothing(self) -> str:
        """What to say when nothing could be used."""
        other = next((name for name, _ in self.others.most_common(1) if name), None)
        if other:
            return f"{self.path}: holds no {self.format.what}; it looks like {FORMATS[other].what}: pass --from {other}"
        return f"{self.path}: holds no usable {self.format.what}; the lines above say why"


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
    input_files(input_path)
    check_output(output_file, "OUT", overwrite=overwrite)
    job = _Import(FORMATS[source], input_path, roles=roles, table=table, strict=strict)
    written = write_jsonl(output_file, job.records())
    print_summary(
        f"converted: {output_file}",
        [("rows", job.rows), *job.report.skipped_rows, *sorted(job.notes.items()), (job.format.makes, written)],
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
