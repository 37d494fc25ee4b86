"""The report as Markdown."""

import re

from tuner.learn_to_ask.report.results import Report
from tuner.learn_to_ask.report.tables import Table, tables

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&#~])")


def to_markdown(report: Report) -> str:
    """Every table of the report, the notes that matter first."""
    names = ", ".join(escape(one.name) for one in report.evaluations)
    parts = [f"# Evaluation report: {names}"]
    if report.notes:
        parts.append("\n".join(f"- **Note.** {escape(note)}" for note in report.notes))
    parts += [_section(table) for table in tables(report)]
    return "\n\n".join(parts) + "\n"


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
    notes = [" ".join(table.notes)] if table.notes else []
    return "\n\n".join([f"## {table.title}", "\n".join(lines), *notes])


def _row(cells: list[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"
