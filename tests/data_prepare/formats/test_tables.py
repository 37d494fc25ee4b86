"""Flat tables in any order and from any reader become the sessions that they were made of."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from run_scripts import CONVERT, read, run

from tuner.learn_to_ask.data_prepare.formats.dialogue import Logged, Roles
from tuner.learn_to_ask.data_prepare.formats.spool import by_session
from tuner.learn_to_ask.data_prepare.formats.table import Columns, TableRow, from_table
from tuner.learn_to_ask.data_prepare.formats.tabular import Tabular, csv_rows
from tuner.learn_to_ask.jsonl import ReadReport

START = datetime(2026, 3, 1, 10, tzinfo=UTC)
TIMES = {
    "numbers": lambda index: index,
    "text": lambda index: str(1772359200.5 + index),
    "ISO 8601": lambda index: (START + timedelta(seconds=index)).isoformat(),
    "datetimes": lambda index: START + timedelta(seconds=index),
}
rows = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["user", "assistant"])), max_size=20)


@given(rows, st.sampled_from(sorted(TIMES)), st.randoms(use_true_random=False))
def test_rows_in_any_order_become_the_sessions_in_the_order_of_their_times(said, kind, random):
    # Given the rows of three sessions that talk at the same time, shuffled
    shuffled = [
        TableRow(str(index), session, None, Logged(role, f"message {index}", TIMES[kind](index)))
        for index, (session, role) in enumerate(said)
    ]
    random.shuffle(shuffled)

    came = list(from_table(by_session(shuffled), Roles()))

    # Then each session holds its own, in order; one in which nobody answers is refused
    order = list(dict.fromkeys(row.session for row in shuffled))
    assert len(came) == len(order)
    for session, outcome in zip(order, came, strict=True):
        wanted = [(role, f"message {index}") for index, (name, role) in enumerate(said) if name == session]
        if len({role for role, _ in wanted}) == 1:
            assert outcome.kind == "one side only"
        else:
            record = outcome.record
            assert record.session_id == session
            assert [(message["role"], message["content"]) for message in record.messages] == wanted


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), min_size=3, max_size=3), max_size=9))
def test_whatever_python_writes_as_csv_is_read_as_it_was(table):
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerows([["session_id", "role", "content"], *table])
    report = ReadReport()

    lines = enumerate(io.BytesIO(file.getvalue().encode()), start=1)
    came = list(csv_rows(lines, Tabular(Columns(), ","), report, path="in.csv", strict=False))

    assert [list(row.value.values()) for row in came] == table
    assert report.skipped == 0


def test_rows_at_the_same_time_stay_in_the_order_of_the_file():
    said = [("user", "a"), ("assistant", "b"), ("user", "c")]
    (outcome,) = from_table([TableRow("", "s", None, Logged(role, text, 5)) for role, text in said], Roles())
    assert [message["content"] for message in outcome.record.messages] == ["a", "b", "c"]
    assert outcome.notes == ()


ROWS = [
    {"session_id": 7, "role": role, "content": text, "at": START + timedelta(days=day), "diagn": diagn, "more": [day]}
    for day, (role, text, diagn) in enumerate([("user", "fever", None), ("assistant", "Since when?", "Flu")])
]
SESSION = {
    "session_id": "7",
    "diagn": "Flu",
    "messages": [{"role": "user", "content": "fever"}, {"role": "assistant", "content": "Since when?"}],
}


def write_parquet(path):
    parquet.write_table(pyarrow.Table.from_pylist(ROWS[::-1]), path)


def write_jsonl(path):
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in ROWS[::-1]))


def write_csv(path):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(ROWS[::-1])


@pytest.mark.parametrize(
    ("write", "flags"),
    [(write_parquet, ()), (write_jsonl, ()), (write_csv, ("--separator", r"\t"))],
    ids=["parquet", "jsonl", "csv"],
)
def test_parquet_json_lines_and_csv_hold_the_same_table(tmp_path, write, flags):
    write(tmp_path / "in")
    result = run(tmp_path, CONVERT, "--from", "table", "in", "out.jsonl", "--time_column", "at", *flags)
    assert (result.returncode, result.stderr) == (0, "")
    assert read(tmp_path / "out.jsonl") == [SESSION]


def test_parquet_with_a_chat_in_each_row_is_read_too(tmp_path):
    chat = {"session_id": "7", "diagn": "Flu", "messages": SESSION["messages"]}
    parquet.write_table(pyarrow.Table.from_pylist([chat]), tmp_path / "in.parquet")
    assert run(tmp_path, CONVERT, "--from", "openai", "in.parquet", "out.jsonl").returncode == 0
    assert read(tmp_path / "out.jsonl") == [SESSION]


def test_a_diagnosis_that_json_cannot_hold_is_named_and_one_that_is_no_number_is_none(tmp_path):
    # pandas writes NaN where there is nothing, and Parquet has dates
    for diagn, code in ((float("nan"), 0), (START, 2)):
        chat = {"session_id": "7", "diagn": diagn, "messages": SESSION["messages"]}
        parquet.write_table(pyarrow.Table.from_pylist([chat]), tmp_path / "in.parquet")
        result = run(tmp_path, CONVERT, "--from", "openai", "in.parquet", "out.jsonl", "--overwrite")
        assert result.returncode == code
    assert "in.parquet row 0: skipped: diagn is of type datetime that JSON cannot hold; make it text" in result.stderr
    assert read(tmp_path / "out.jsonl") == [{**SESSION, "diagn": None}]
