"""Puts the rows of a table together by session on the disk, so that tables may be larger than the memory."""

import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

from tuner.learn_to_ask.data_prepare.formats.table import TableRow
from tuner.learn_to_ask.errors import UserError

# The index hands sessions out in the order of their first rows, and the rows of each in theirs, without sorting texts.
_ORDER = """
SELECT rows.row FROM (SELECT session, MIN(number) AS start FROM rows GROUP BY session ORDER BY start) AS first
CROSS JOIN rows ON rows.session = first.session ORDER BY first.start, rows.number
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
            packed = ((row.session, pickle.dumps(row)) for row in rows)
            spool.executemany("INSERT INTO rows (session, row) VALUES (?, ?)", packed)
            spool.execute("CREATE INDEX sessions ON rows (session)")
            for (row,) in spool.execute(_ORDER):
                yield pickle.loads(row)
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            raise UserError("the temporary folder is full; name another one in SQLITE_TMPDIR") from error
