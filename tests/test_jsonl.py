"""JSON Lines in and out: bad lines are named and counted, files appear whole or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, dump_line, read_jsonl, require_input, write_jsonl

LINE_BREAKS = "\n \r \x0b \x0c \x1c \x1d \x1e \x85 \u2028 \u2029".split(" ")
TEXT = st.one_of(
    st.text(),
    st.lists(st.sampled_from([*LINE_BREAKS, "\r\n", "\\", '"', "\x00", "\x7f", "\ud800.", "\udfff.", "咳"])).map(
        "".join
    ),
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=10,
)


def session_line(session_id=1, **changes):
    """A good line, or one with what `changes` breaks."""
    session = {"session_id": session_id, "diagn": "Flu", "messages": [{"role": "user", "content": "I feel ill"}]}
    return json.dumps({**session, **changes})


def read_all(path, report=None, **options):
    return list(read_jsonl(path, Session, unique_key="session_id", report=report or ReadReport(), **options))


# Writing


@given(record=st.dictionaries(TEXT, VALUE, max_size=4))
def test_a_record_is_one_line_for_every_reader_and_comes_back_as_it_was(record):
    line = dump_line(record)
    assert json.loads(line) == record
    assert line.splitlines() == [line]
    assert line.encode("utf-8").decode("utf-8") == line


@given(contents=st.lists(st.text().filter(str.strip), min_size=1, max_size=3))
def test_a_session_comes_back_as_it_was(contents, tmp_path_factory):
    session = Session(session_id="1", messages=[{"role": "user", "content": content} for content in contents])
    path = tmp_path_factory.mktemp("jsonl") / "sessions.jsonl"
    write_jsonl(path, [session])
    assert read_all(path) == [session]


def test_lines_stay_readable():
    assert dump_line({"diagn": "上呼吸道感染 <med_search>"}) == '{"diagn": "上呼吸道感染 <med_search>"}'


def test_records_are_written_in_order_one_a_line_and_counted(tmp_path):
    path = tmp_path / "new" / "folder" / "out.jsonl"
    assert write_jsonl(path, iter([{"a": 1}, {"b": "x\u2028y"}])) == 2
    assert path.read_bytes() == b'{"a": 1}\n{"b": "x\\u2028y"}\n'
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


def test_no_record_makes_an_empty_file(tmp_path):
    assert write_jsonl(tmp_path / "out.jsonl", []) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def broken_off(error):
    yield {"a": 1}
    raise error


@pytest.mark.parametrize("error", [RuntimeError("lost"), UserError("bad line"), KeyboardInterrupt()], ids=repr)
def test_a_run_that_breaks_off_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(type(error)):
        write_jsonl(tmp_path / "out.jsonl", broken_off(error))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("records", [broken_off(RuntimeError("lost")), [{"a": object()}]], ids=["source", "record"])
def test_a_run_that_breaks_off_keeps_the_file_that_was_there(tmp_path, records):
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"precious\n")
    with pytest.raises((RuntimeError, TypeError)):
        write_jsonl(path, records)
    assert path.read_bytes() == b"precious\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old\n")
    seen = []

    def records():
        yield {"a": 1}
        seen.append(path.read_bytes())

    write_jsonl(path, records())
    assert seen == [b"old\n"]
    assert path.read_bytes() == b'{"a": 1}\n'


# Reading


@pytest.mark.parametrize(
    ("bad_line", "kind", "reason"),
    [
        pytest.param("hello", "not JSON", "not JSON: Expecting value at column 1", id="prose"),
        pytest.param('{"session_id": 2, ', "not JSON", "not JSON: ", id="cut off"),
        pytest.param(session_line(2) + session_line(3), "not JSON", "not JSON: Extra data", id="two in a line"),
        pytest.param("[" * 100_000, "not JSON", "not JSON: ", id="nested too deeply"),
        pytest.param("9" * 5000, "not JSON", "not JSON: ", id="more digits than Python reads"),
        pytest.param(session_line(2, diagn=float("nan")), "not JSON", "NaN is no JSON value", id="NaN"),
        pytest.param(session_line(2, diagn=float("inf")), "not JSON", "Infinity is no JSON value", id="Infinity"),
        pytest.param(session_line(2, diagn=-float("inf")), "not JSON", "-Infinity is no JSON value", id="-Infinity"),
        pytest.param("[1, 2]", "bad record", "the line: ", id="a list"),
        pytest.param("null", "bad record", "the line: ", id="null"),
        pytest.param('{"session_id": 2}', "bad messages", "messages: Field required", id="no messages"),
        pytest.param(session_line(2, messages=[]), "bad messages", "messages: List should have at least 1", id="empty"),
        pytest.param(session_line(2, messages="hi"), "bad messages", "messages: ", id="messages is a string"),
        pytest.param(session_line(2, messages=["hi"]), "bad messages", "messages.0: ", id="a message is a string"),
        pytest.param(
            session_line(2, messages=[{"role": "user", "content": "hi"}, {"role": "doctor", "content": "hi"}]),
            "bad messages",
            "messages.1.role: Input should be 'user' or 'assistant'",
            id="an unknown role",
        ),
        pytest.param(
            session_line(2, messages=[{"role": "user", "content": 38.5}]),
            "bad messages",
            "messages.0.content: Input should be a valid string",
            id="content is a number",
        ),
        pytest.param(
            session_line(2, messages=[{"role": "user", "content": None}]),
            "bad messages",
            "messages.0.content: ",
            id="content is null",
        ),
        pytest.param(
            session_line(2, messages=[{"role": "user"}]), "bad messages", "messages.0.content: Field", id="no content"
        ),
        pytest.param('{"messages": [{"role": "user", "content": "a"}]}', "bad session_id", "session_id: ", id="no id"),
        pytest.param(session_line(2.5), "bad session_id", "session_id: ", id="the id is a fraction"),
        pytest.param(session_line(True), "bad session_id", "session_id: ", id="the id is true"),
        pytest.param(session_line(None), "bad session_id", "session_id: ", id="the id is null"),
        pytest.param(session_line(1), "duplicate session_id", "duplicate session_id '1'", id="a number twice"),
        pytest.param(session_line("1"), "duplicate session_id", "duplicate session_id '1'", id="a number as a string"),
        pytest.param(b"\xff\xfe", "not UTF-8", "not UTF-8: invalid start byte at byte 0", id="not UTF-8"),
        pytest.param(b'{"session_id": "\xe5\x92', "not UTF-8", "not UTF-8: ", id="cut off within a character"),
    ],
)
def test_a_bad_line_is_named_counted_and_skipped(tmp_path, capsys, bad_line, kind, reason):
    # Given a bad line between two good ones
    path = tmp_path / "sessions.jsonl"
    bad_bytes = bad_line if isinstance(bad_line, bytes) else bad_line.encode()
    path.write_bytes(b"\n".join([session_line(1).encode(), bad_bytes, session_line(9).encode(), b""]))
    # When it is read, then the good ones arrive, and one line on stderr tells where and why
    report = ReadReport()
    assert [session.session_id for session in read_all(path, report)] == ["1", "9"]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{path}:2: skipped: ")
    assert reason in said
    assert (report.good, report.bad, report.skipped) == (2, {kind: 1}, 1)
    # When it is read strictly, then it stops there with the same place and reason
    before = []
    with pytest.raises(UserError) as caught:
        before.extend(session.session_id for session in stop_at_error(path, before))
    assert before == ["1"]
    assert str(caught.value).startswith(f"{path}:2: ")
    assert reason in str(caught.value)


def stop_at_error(path, before):
    """Reads strictly and notes in `before` what arrives ahead of the error."""
    for session in read_jsonl(path, Session, unique_key="session_id", report=ReadReport(), strict=True):
        before.append(session.session_id)
    return []


def test_a_number_too_large_for_a_float_is_refused_like_the_infinity_it_would_become(tmp_path, capsys):
    # What is read must be writable as JSON again, and Infinity is none.
    path = tmp_path / "sessions.jsonl"
    path.write_text(session_line(1).replace('"Flu"', "1e999") + "\n", encoding="utf-8")
    report = ReadReport()
    assert read_all(path, report) == []
    assert report.bad == {"not JSON": 1}
    assert f"{path}:1: skipped: not JSON" in capsys.readouterr().err


def test_every_reason_is_counted_apart(tmp_path):
    path = tmp_path / "sessions.jsonl"
    lines = [session_line(1), "x", "y", session_line(1), session_line(2, messages=[]), session_line(2)]
    path.write_text("\n".join(lines), encoding="utf-8")
    report = ReadReport()
    # A line that was skipped does not use up its key.
    assert [session.session_id for session in read_all(path, report)] == ["1", "2"]
    assert report.bad == {"not JSON": 2, "duplicate session_id": 1, "bad messages": 1}
    assert (report.good, report.skipped) == (2, 4)


def test_a_second_pass_can_be_quiet(tmp_path, capsys):
    path = tmp_path / "sessions.jsonl"
    path.write_text(f"x\n{session_line(1)}\n", encoding="utf-8")
    report = ReadReport()
    assert len(read_all(path, report, quiet=True)) == 1
    assert capsys.readouterr().err == ""
    assert report.skipped == 1


def test_a_bom_at_the_start_of_the_file_is_no_part_of_it(tmp_path, capsys):
    path = tmp_path / "sessions.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{session_line(1)}\n".encode())
    assert [session.session_id for session in read_all(path)] == ["1"]
    assert capsys.readouterr().err == ""


def test_blank_lines_are_skipped_but_count_as_lines(tmp_path, capsys):
    path = tmp_path / "sessions.jsonl"
    path.write_bytes(f"\n{session_line(1)}\r\n  \r\n\nx\n{session_line(2)}".encode())
    report = ReadReport()
    assert [session.session_id for session in read_all(path, report)] == ["1", "2"]
    assert capsys.readouterr().err.startswith(f"{path}:5: skipped: not JSON")
    assert (report.good, report.skipped) == (2, 1)


def test_numeric_and_string_ids_become_strings(tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_text("\n".join([session_line(35310), session_line("web-7"), session_line(10**30)]), encoding="utf-8")
    assert [session.session_id for session in read_all(path)] == ["35310", "web-7", "1" + "0" * 30]


def test_keys_that_nobody_knows_are_ignored(tmp_path):
    path = tmp_path / "sessions.jsonl"
    messages = [{"role": "user", "content": "a", "time": 5}]
    path.write_text(session_line(1, department="ENT", messages=messages), encoding="utf-8")
    (session,) = read_all(path)
    assert session.model_dump() == {
        "session_id": "1",
        "diagn": "Flu",
        "messages": [{"role": "user", "content": "a"}],
    }


def test_a_line_break_inside_a_message_ends_no_line(tmp_path):
    path = tmp_path / "sessions.jsonl"
    content = "a\u2028b\x85c"
    session = {"session_id": 1, "messages": [{"role": "user", "content": content}]}
    path.write_text(json.dumps(session, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_all(path)[0].messages[0]["content"] == content


def test_lines_are_read_one_at_a_time(tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_text(f"{session_line(1)}\nx\n", encoding="utf-8")
    report = ReadReport()
    sessions = read_jsonl(path, Session, unique_key="session_id", report=report)
    assert next(sessions).session_id == "1"
    assert report.skipped == 0
    assert next(sessions, None) is None
    assert report.skipped == 1


# Inputs


@pytest.mark.parametrize(
    ("name", "said"), [("missing", "no such file"), ("folder", "no such file"), ("empty", "empty")]
)
def test_an_unusable_input_is_refused_with_its_flag_and_name(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    with pytest.raises(UserError) as caught:
        require_input(tmp_path / name, "--input_file")
    assert str(caught.value).startswith(f"--input_file {tmp_path / name}: ")
    assert said in str(caught.value)


def test_a_usable_input_is_handed_back(tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_text("x", encoding="utf-8")
    assert require_input(path, "--input_file") == path


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "pain \\udc00 here"])
def test_half_a_surrogate_pair_is_a_bad_line_since_no_tokenizer_could_take_it(half, tmp_path, capsys):
    path = tmp_path / "sessions.jsonl"
    path.write_text(session_line().replace("I feel ill", half))

    assert read_all(path) == []
    assert "sessions.jsonl:1: skipped: not Unicode" in capsys.readouterr().err


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_text('{"session_id": 1, "messages": [{"role": "user", "content": "\\ud83d\\ude00"}]}\n')

    assert read_all(path)[0].messages[0]["content"] == "😀"
