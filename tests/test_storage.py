"""Files of records by their names: plain, gzip, zstd and Parquet hold the same, whole or not at all."""

import datetime
import gzip
import json

import numpy as np
import pyarrow
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from interviews import QUESTIONS, STOP, diarrhea, interview
from pyarrow import parquet

from tuner.learn_to_ask.core.records import GradedTask, Interview, Judgement, Sample, Session, Task, TaskWithRollouts
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import Journal
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, write_jsonl
from tuner.learn_to_ask.parquet import as_text, from_text

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
MESSAGES = [{"role": "user", "content": "i cough\u2028咳\x7f"}, {"role": "assistant", "content": ""}]
TASK = {"cid": "1_0", "session_id": "1", "messages": MESSAGES[:1], "decision_truth": "continue", "info_truth": "a: b"}
SAMPLING = {"temperature": 1.0, "top_p": None, "max_tokens": 512, "repetition_penalty": None}
ROLLOUTS = {**TASK, "rollouts": ["", "Since when?"], "policy": "p", "sampling": SAMPLING, "sampling_applied": None}
GRADES = [
    {"think": "", "action_score": 1.0, "format_score": None, "content_score": 0.1},
    {"think": "1/3", "action_score": 0.0, "format_score": 1 / 3, "content_score": None},
]
AGAIN = [[{"think": "x", "format_score": None, "content_score": 0.5}], []]
RECORDS = [
    Session(session_id="1", diagn={"name": ["flu", 1, None]}, messages=MESSAGES[:1]),
    Sample(cid="1_0", session_id="1", messages=MESSAGES[:1], remaining_chat=[], info_set=None),
    Sample(cid="1_0", session_id="1", diagn="12", messages=MESSAGES[:1], remaining_chat=MESSAGES[:1], info_set=[]),
    Task(**TASK),
    TaskWithRollouts.model_validate(ROLLOUTS),
    GradedTask.model_validate({**ROLLOUTS, "grades": GRADES, "grader": "g", "regrades": AGAIN}),
    GradedTask.model_validate({**ROLLOUTS, "rollouts": [], "grades": []}),
    interview(*QUESTIONS, STOP, sample=diarrhea()),
    interview(QUESTIONS[0], sample=diarrhea()),
    Judgement(session_id="1", score=None, think="hm"),
]


def key_of(record_type):
    return "session_id" if record_type in (Session, Interview, Judgement) else "cid"


def read_all(path, record_type=Session, **flags):
    given = {"unique_key": key_of(record_type), "report": ReadReport(), "strict": True, **flags}
    return list(read_jsonl(path, record_type, **given))


def sessions(count):
    return [Session(session_id=str(number), diagn=number, messages=MESSAGES[:1]) for number in range(count)]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_comes_back_as_it_was_from_every_sort_of_file(tmp_path, ending, record):
    path = tmp_path / f"file{ending}"
    assert write_jsonl(path, [record], type(record)) == 1
    assert read_all(path, type(record)) == [record]
    assert count_lines(path) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(json_values, json_values.map(json.dumps)))  # texts that look like JSON, too
def test_a_value_of_changing_type_comes_back_as_it_was_and_of_its_type(value):
    back = from_text(as_text(value))
    assert (back, type(back)) == (value, type(value))


def test_in_parquet_a_text_stands_as_it_is_and_all_else_as_json(tmp_path):
    path = tmp_path / "in.parquet"
    values = ["Cold", "12", 12, ["a", 1], None, ""]
    write_jsonl(
        path, [Session(session_id=str(n), diagn=value, messages=MESSAGES[:1]) for n, value in enumerate(values)]
    )
    table = parquet.read_table(path)
    assert table.column("diagn").to_pylist() == ["Cold", '"12"', "12", '["a", 1]', None, ""]
    assert str(table.schema.field("messages").type) == "list<element: struct<role: string, content: string>>"
    assert [session.diagn for session in read_all(path)] == values


def test_the_datasets_library_reads_what_is_written(tmp_path):
    from datasets import load_dataset

    path = tmp_path / "out.parquet"
    graded = GradedTask.model_validate({**ROLLOUTS, "diagn": ["flu", 1], "grades": GRADES, "regrades": AGAIN})
    write_jsonl(path, [graded])
    (row,) = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert row["diagn"] == '["flu", 1]'
    assert row["messages"] == MESSAGES[:1]
    assert row["grades"] == GRADES
    assert row["regrades"] == AGAIN


def test_parquet_of_the_datasets_library_is_read(tmp_path):
    from datasets import Dataset

    path = tmp_path / "in.parquet"
    rows = [{"session_id": number, "diagn": "12", "messages": MESSAGES} for number in range(3)]
    Dataset.from_list(rows).to_parquet(str(path))
    # its columns are not marked as JSON, so that a text stays one
    assert [(one.session_id, one.diagn, one.messages) for one in read_all(path)] == [
        (str(number), "12", MESSAGES[:1]) for number in range(3)
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_records_are_the_same_bytes(tmp_path, ending):
    first, second = tmp_path / f"first{ending}", tmp_path / "other" / f"second{ending}"
    write_jsonl(first, sessions(5))
    write_jsonl(second, iter(sessions(5)))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_breaks_off_leaves_nothing_under_the_final_name(tmp_path, ending):
    path = tmp_path / f"out{ending}"

    def broken_off():
        yield from sessions(3)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        write_jsonl(path, broken_off())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_no_records_is_read_as_such(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    assert write_jsonl(path, [], Session) == 0
    assert read_all(path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_journal_becomes_an_output_of_any_sort_in_input_order(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    journal = Journal(path, fingerprint={}, resume=False, overwrite=False)
    for index in (2, 0):
        journal.append(index, sessions(3)[index])
    journal.close()
    journal = Journal(path, fingerprint={}, resume=True, overwrite=False)
    journal.append(1, sessions(3)[1])
    assert journal.finish(3, Session) == 3
    assert read_all(path) == sessions(3)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_a_file_cut_off_anywhere_is_one_line_that_names_it(tmp_path, ending):
    whole = tmp_path / f"whole{ending}"
    write_jsonl(whole, sessions(200))
    content = whole.read_bytes()
    path = tmp_path / f"cut{ending}"
    for cut in {4, 5, 20, len(content) // 2, len(content) - 9, len(content) - 4, len(content) - 1}:
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"cut.*(cut off|not UTF-8)") as caught:
            read_all(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, ending):
    path = tmp_path / f"bad{ending}"
    write_jsonl(path, sessions(200))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_all(path)
    assert str(caught.value).startswith(f"{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_compressed_files_that_were_joined_are_read_to_their_end(tmp_path, compress):
    path = tmp_path / "in.jsonl"
    lines = [(one.model_dump_json() + "\n").encode() for one in sessions(2)]
    path.write_bytes(b"".join(map(compress, lines)))
    assert read_all(path) == sessions(2)


def test_a_text_named_parquet_is_one_line(tmp_path):
    path = tmp_path / "in.parquet"
    path.write_text(sessions(1)[0].model_dump_json() + "\n")
    with pytest.raises(UserError, match=r"in.parquet: cannot be read as Parquet, it is damaged, cut off or none"):
        read_all(path)


def table(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_missing_columns_are_one_line_that_says_what_there_is(tmp_path):
    path = table(tmp_path / "in.parquet", session_id=["1"], text=["hm"])
    with pytest.raises(UserError) as caught:
        read_all(path, Sample)
    said = "has no column cid, messages, remaining_chat; there are: session_id, text"
    assert str(caught.value) == f"{path}: {said}"


def test_unknown_columns_are_passed_over_and_said_once(tmp_path, capsys):
    path = table(tmp_path / "in.parquet", session_id=["1", "2"], text=["hm", "hm"], messages=[MESSAGES[:1]] * 2)
    assert [one.session_id for one in read_all(path)] == ["1", "2"]
    assert capsys.readouterr().err == f"{path}: columns passed over: text\n"
    assert len(read_all(path, quiet=True)) == 2
    assert capsys.readouterr().err == ""


def test_bad_rows_are_named_by_their_number_and_counted(tmp_path, capsys):
    path = table(tmp_path / "in.parquet", session_id=["1", None, "1", "3"], messages=[MESSAGES[:1]] * 3 + [[]])
    report = ReadReport()
    assert [one.session_id for one in read_all(path, report=report, strict=False)] == ["1"]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"{path}:2: skipped: session_id: Input should be a valid string")
    assert said[1] == f"{path}:3: skipped: duplicate session_id '1'"
    assert said[2].startswith(f"{path}:4: skipped: messages: List should have at least 1 item")
    assert (report.good, report.skipped) == (1, 3)


@pytest.mark.parametrize("value", [datetime.date(2026, 1, 1), float("nan"), b"x"], ids=["date", "nan", "bytes"])
def test_a_diagnosis_that_json_cannot_hold_is_a_bad_row(tmp_path, value):
    path = table(tmp_path / "in.parquet", session_id=["1"], messages=[MESSAGES[:1]], diagn=[value])
    with pytest.raises(UserError, match=r"in.parquet:1: diagn: "):
        read_all(path)


def test_many_rows_and_long_ones_are_written_and_read_in_pieces(tmp_path):
    # Given rows of all lengths, more than are in one row group
    lengths = np.random.default_rng(0).integers(1, 2000, 400)
    path = tmp_path / "in.parquet"

    def long_sessions():
        for number, length in enumerate(lengths):
            turn = {"role": "user", "content": f"{number} " * 20}
            yield Session(session_id=str(number), messages=[turn] * int(length))

    # When they are written, then there are several groups and every row comes back
    write_jsonl(path, long_sessions())
    assert parquet.ParquetFile(path).num_row_groups > 1
    assert all(one == two for one, two in zip(read_all(path), long_sessions(), strict=True))


@pytest.mark.parametrize("name", ["out.jsonl.bz2", "out.jsonl.xz", "out.feather", "out.parquet.gz"])
def test_a_name_that_promises_another_format_is_refused_before_the_work(tmp_path, name):
    from tuner.learn_to_ask.cli import check_output

    with pytest.raises(UserError, match=r"--output_file .*is not written; end it in .jsonl, .jsonl.gz"):
        check_output(tmp_path / name, "--output_file", overwrite=False)


def test_what_is_no_record_of_ours_is_not_made_parquet(tmp_path):
    with pytest.raises(UserError, match=r"out.parquet: is only written as JSON Lines"):
        write_jsonl(tmp_path / "out.parquet", [{"a": 1}])
    assert list(tmp_path.iterdir()) == []
