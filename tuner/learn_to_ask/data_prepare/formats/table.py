"""Flat tables with a message in each row, in any order: rows are put together by session."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from tuner.learn_to_ask.data_prepare.formats.dialogue import Logged, Roles, heard, session_of
from tuner.learn_to_ask.data_prepare.formats.rows import Outcome, Refused, Row
from tuner.learn_to_ask.jsonl import LineError


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns are called.

    Attributes:
        session: Holds the id of the session.
        role: Who speaks.
        text: What is said.
        time: When; `None` when the rows of a session are in order.
    """

    session: str = "session_id"
    role: str = "role"
    text: str = "content"
    time: str | None = None

    @property
    def names(self) -> list[str]:
        """Those that a table must have."""
        return [self.session, self.role, self.text, *([] if self.time is None else [self.time])]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table.

    Attributes:
        place: Where it stands.
        session: Id of its session.
        diagn: The diagnosis, `None` when the table has no column of this name.
        message: What is said.
    """

    place: str
    session: str
    diagn: object
    message: Logged


def is_table_row(value: object) -> bool:
    """Whether a row looks like one of a flat table."""
    return (
        isinstance(value, dict) and len(value) > 2 and not any(isinstance(each, dict | list) for each in value.values())
    )


def has_columns(value: object, columns: Columns) -> bool:
    """Whether a row has the columns, whatever others it has."""
    return isinstance(value, dict) and all(name in value for name in columns.names)


def table_row(row: Row, columns: Columns) -> TableRow:
    """A row by the names of its columns.

    Raises:
        LineError: When a column is missing or the session has no id.
    """
    missing = [name for name in columns.names if name not in row.value]
    if missing:
        raise LineError(
            "no such column", f"has no {missing[0]!r}; its columns: {', '.join(map(repr, row.value))}"[:200]
        )
    session = row.value[columns.session]
    if isinstance(session, float) and session.is_integer():
        session = int(session)
    if isinstance(session, bool) or not isinstance(session, str | int) or not str(session).strip():
        raise LineError("no session", f"{columns.session} is {session!r}, no id")
    time = row.value[columns.time] if columns.time else None
    message = Logged(role=row.value[columns.role], content=row.value[columns.text], time=time)
    return TableRow(row.place, str(session), row.value.get("diagn"), message)


def from_table(rows: Iterable[TableRow], roles: Roles) -> Iterator[Outcome]:
    """The sessions of a table.

    Args:
        rows: Those of a session one after the other.
        roles: Of the log.
    """
    for session, group in groupby(rows, key=lambda row: row.session):
        members = list(group)
        try:
            diagn = next((row.diagn for row in members if row.diagn not in (None, "")), None)
            messages = heard((row.message for row in members), roles)
            yield session_of(session, diagn, messages, place=members[0].place)
        except LineError as error:
            yield Refused(members[0].place, error.kind, f"session {session!r}: {error.reason}")
