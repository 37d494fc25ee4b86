"""However a row is damaged, it becomes a record or is refused with a reason; nothing breaks."""

import copy
import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, PassedOver, Refused, Row
from tuner.learn_to_ask.data_prepare.formats.select import FORMATS, TABLE, looks_like
from tuner.learn_to_ask.data_prepare.formats.spool import by_session
from tuner.learn_to_ask.data_prepare.formats.table import Columns, from_table, table_row
from tuner.learn_to_ask.jsonl import LineError, dump_line

COLUMNS = Columns("visit", "speaker", "text", "sent_at")
ROLES = Roles(user=frozenset({"patient"}), assistant=frozenset({"doctor", "nurse"}))
GOLDEN = Path(__file__).parent / "golden"
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "user", "a_1", "[", "{}"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["role", "content", "type"]), inner),
    max_leaves=4,
)


def golden_rows(name):
    """The rows of a golden file, as a reader gives them."""
    (file,) = (file for file in GOLDEN.glob(f"{name}.*") if "expected" not in file.name)
    if file.suffix == ".csv":
        return list(csv.DictReader(file.open(newline="")))
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    value = json.loads(file.read_text())
    return value if isinstance(value, list) else [value]


def places(value, path=()):
    """Every place in some JSON, the whole first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def damaged(rows, draw):
    """The rows with one value taken out or exchanged."""
    rows = copy.deepcopy(rows)
    *way, key = draw(st.sampled_from([place for place in places(rows) if place]))
    holder = rows
    for step in way:
        holder = holder[step]
    if draw(st.booleans()):
        holder[key] = draw(values)
    else:
        del holder[key]
    return rows


def outcomes(name, rows):
    known = FORMATS[name]
    fitting = [Row(f"in:{n}", f"in-{n}", value) for n, value in enumerate(rows) if known.looks(value)]
    if name != TABLE:
        return list(known.convert(fitting, Roles()))
    taken = []
    for row in fitting:
        try:
            taken.append(table_row(row, COLUMNS))
        except LineError as error:
            assert error.kind in ("no such column", "no session")
    return list(from_table(by_session(taken), ROLES))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150)
@given(st.data())
def test_a_damaged_row_is_converted_or_refused(name, data):
    rows = golden_rows(name)
    for _ in range(data.draw(st.integers(1, 3))):
        rows = damaged(rows, data.draw) if rows else rows

    for outcome in outcomes(name, rows):
        if isinstance(outcome, Converted):
            json.loads(dump_line(outcome.record), parse_constant=pytest.fail)
            type(outcome.record).model_validate(outcome.record.model_dump())
        else:
            assert isinstance(outcome, PassedOver) or (outcome.kind and outcome.reason and "\n" not in outcome.reason)
            assert isinstance(outcome, PassedOver | Refused)


@given(values)
def test_whatever_a_row_is_it_can_be_looked_at(value):
    assert looks_like(value) in (None, *FORMATS)
