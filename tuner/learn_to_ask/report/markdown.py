"""Reports as Markdown."""

import re
from collections.abc import Iterable, Sequence

from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.interviews.tables import interview_metrics_table, interview_tables
from tuner.learn_to_ask.report.results import Report
from tuner.learn_to_ask.report.tables import Table, tables

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&#~])")


def to_markdown(report: Report, interviews: InterviewReport | None = None) -> str:
    """Every table of the report, the notes that matter first.

    Args:
        report: Of evaluations.
        interviews: Of the whole interviews of the same policies: its table of metrics, and where the rest is.
    """
    sections = list(map(_section, tables(report)))
    if interviews is not None:
        table = _section(interview_metrics_table(interviews, title="Whole interviews"))
        sections.insert(1, f"{table}\n\nMore in [interviews.md](interviews.md).")
    return _document("Evaluation report", [one.name for one in report.evaluations], report.notes, sections)


def interviews_to_markdown(report: InterviewReport) -> str:
    """The same for whole interviews."""
    sections = map(_section, interview_tables(report))
    return _document("Whole interviews", [one.name for one in report.policies], report.notes, sections)


def _document(title: str, names: Sequence[str], notes: Sequence[str], sections: Iterable[str]) -> str:
    """Heading, notes, sections."""
    parts = [f"# {title}: {', '.join(map(escape, names))}"]
    if notes:
        parts.append("\n".join(f"- **Note.** {escape(note)}" for note in notes))
    return "\n\n".join([*parts, *sections]) + "\n"


def escape(text: str) -> str:
    """Text that stands in Markdown as it is: one line, no markup, no end of a table cell."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _section(table: Table) -> str:
    """Heading, table and notes."""
    align = ["---" if column < table.texts else "---:" for column in range(len(table.header))]
    lines = [
        _row([escape(name) for name in table.header]),
        _row(align),
        *(_row([escape(cell).replace(r"\[", "[").replace(r"\]", "]") for cell in row]) for row in table.rows),
    ]
    notes = [escape(" ".join(table.notes))] if table.notes else []
    return "\n\n".join([f"## {table.title}", "\n".join(lines), *notes])


def _row(cells: list[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"
