"""Puts the rows of a table together by session on the disk, so that tables may be larger than the memory."""

import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

from tuner.learn_to_ask.data_prepare.formats.dialogue import Logged
from tuner.learn_to_ask.data_prepare.formats.table import TableRow
from tuner.learn_to_ask.errors import UserError

# The index hands sessions out in the order of their first rows, and the rows of each in theirs, without sorting texts.
_ORDER = """
WITH first AS (SELECT session, MIN(number) AS start FROM rows GROUP BY session ORDER BY start)
SELECT rows.session, rows.row FROM first CROSS JOIN rows ON rows.session = first.session
ORDER BY first.start, rows.number
"""


def by_session(rows: Iterable[TableRow]) -> Iterator[TableRow]:
    """The rows by session: sessions in the order in which they begin, rows of a session in their order.

    Args:
        rows: In any order; consumed before the first is given back.

    Raises:
        UserError: When the temporary folder is full.
    """
    with closing(sqlite3.connect("")) as spool:  # a file without a name, which goes with the process
        try:
            spool.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, session TEXT, row BLOB)")
            spool.executemany("INSERT INTO rows (session, row) VALUES (?, ?)", map(_packed, rows))
            spool.execute("CREATE INDEX sessions ON rows (session)")
            for session, row in spool.execute(_ORDER):
                place, diagn, role, content, when = pickle.loads(row)
                yield TableRow(place, session, diagn, Logged(role=role, content=content, time=when))
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            raise UserError("the temporary folder is full; name another one in SQLITE_TMPDIR") from error


def _packed(row: TableRow) -> tuple[str, bytes]:
    """A row as it lies on the disk; a tuple is packed in half the time of a dataclass."""
    message = row.message
    return row.session, pickle.dumps((row.place, row.diagn, message.role, message.content, message.time))
