"""What goes into a format and what comes out: rows as a reader gives them, records, and what was not taken."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tuner.learn_to_ask.jsonl import LineError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        place: Where it stands, such as `logs.jsonl:12`, for people to find it.
        name: What a session is called that has no id of its own, such as `logs-12`.
        value: What the row says, as parsed.
    """

    place: str
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Converted:
    """A record made of one row or of several.

    Attributes:
        place: Where its first row stands.
        record: Of `core/records.py`.
        notes: What was left out or changed on the way, once for each time.
    """

    place: str
    record: BaseModel
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Rows that cannot be used.

    Attributes:
        place: Where the first of them stands.
        kind: What sort of fault it is, for counting.
        reason: What exactly, for reading.
    """

    place: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A row that is sound and has no place in our records, such as a span without a dialogue.

    Attributes:
        kind: What it is, for counting.
    """

    kind: str


Outcome = Converted | Refused | PassedOver


def each(rows: Iterable[Row], convert: Callable[[Row], Converted]) -> Iterator[Outcome]:
    """The outcomes of a format whose every row is a record.

    Args:
        rows: Of a file.
        convert: Raises `LineError` for a row that cannot be used.
    """
    for row in rows:
        try:
            yield convert(row)
        except LineError as error:
            yield Refused(row.place, error.kind, error.reason)
