"""Files as they come: joined, compressed, or no JSON Lines at all."""

import gzip
import json

import pytest
import zstandard

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl


def session_line(session_id=1):
    return json.dumps({"session_id": session_id, "messages": [{"role": "user", "content": "I feel ill"}]})


def read_all(path, report=None):
    return list(read_jsonl(path, Session, unique_key="session_id", report=report or ReadReport()))


def test_files_that_were_joined_with_their_byte_order_marks_are_read(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b"".join(b"\xef\xbb\xbf" + session_line(index).encode() + b"\r\n" for index in range(3)) + b"\0" * 99
    )
    assert [session.session_id for session in read_all(path)] == ["0", "1", "2"]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_compressed_files_are_read_whatever_their_name(tmp_path, compress):
    path = tmp_path / "in.jsonl"
    path.write_bytes(compress((session_line(1) + "\n" + session_line(2)).encode()))
    assert [session.session_id for session in read_all(path)] == ["1", "2"]
    assert count_lines(path) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"[{session_line()}]".encode(), "one JSON array, one JSON object a line is wanted"),
        (f"[\n{session_line()}\n]".encode(), "one JSON array, one JSON object a line is wanted"),
        (json.dumps(json.loads(session_line()), indent=2).encode(), "pretty-printed over several lines"),
        (session_line().encode("utf-16"), "is UTF-16; convert it"),
    ],
)
def test_a_file_that_is_no_json_lines_is_named_with_what_to_do(tmp_path, content, said):
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"in.jsonl: .*{said}"):
        read_all(path)


def test_of_many_bad_lines_a_few_are_printed_and_the_rest_counted(tmp_path, capsys):
    path = tmp_path / "in.csv"
    path.write_text("session_id,role,content\n" * 100)
    report = ReadReport()
    assert read_all(path, report) == []
    printed = capsys.readouterr().err.splitlines()
    assert (len(printed), printed[-1]) == (6, f"{path}: skipped: 95 more lines")
    assert (report.skipped, report.too_many_bad(0.99), report.too_many_bad(1.0)) == (100, True, False)
