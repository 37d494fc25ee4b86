"""What cannot be converted is one clear line each; nothing is half-written, nothing lost without a word."""

import gzip
import json
import sqlite3
from pathlib import Path

import pytest
from run_scripts import CONVERT, SAMPLE, SESSION, error_of, names_in, read, run, summary_of, write

from tuner.learn_to_ask.data_prepare.formats import files

GOLDEN = Path(__file__).parent / "golden"
CHAT = {"id": "a", "messages": SESSION["messages"]}
SHAREGPT = {"id": "b", "conversations": [{"from": "human", "value": "hm"}, {"from": "gpt", "value": "ha"}]}
HEADER = "session_id,role,content"


def convert(folder, source, *flags, name="in.jsonl"):
    return run(folder, CONVERT, "--from", source, name, "out.jsonl", *flags)


def convert_table(folder, text, *flags):
    (folder / "in.csv").write_text(text, encoding="utf-8")
    return convert(folder, "table", *flags, name="in.csv")


def nothing_written(folder):
    return not [name for name in names_in(folder) if name.startswith("out")]


# Wrong and mixed formats


@pytest.mark.parametrize(
    "file",
    [
        file.name
        for file in sorted(GOLDEN.iterdir())
        # An evaluation with NaN in it is no JSON for any other format.
        if "expected" not in file.name and not file.name.startswith(("openai", "upstream_evaluation"))
    ],
)
def test_a_file_of_the_wrong_format_is_named_with_the_one_it_looks_like(tmp_path, file):
    result = run(tmp_path, CONVERT, "--from", "openai", GOLDEN / file, "out.jsonl")

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(f"pass --from {file.partition('.')[0]}")
    assert names_in(tmp_path) == []


def test_rows_of_another_format_among_good_ones_are_named_and_counted(tmp_path):
    write(tmp_path / "in.jsonl", CHAT, SHAREGPT, "[1]", "7")
    result = convert(tmp_path, "openai")

    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "in.jsonl:2: skipped: is none of the OpenAI chats, looks like sharegpt",
        "in.jsonl:3[0]: skipped: is none of the OpenAI chats",
        "in.jsonl:4: skipped: is none of the OpenAI chats",
    ]
    assert summary_of(result) == {
        "rows": "4",
        "skipped: looks like sharegpt": "1",
        "skipped: none of the OpenAI chats": "2",
        "sessions": "1",
    }
    assert [session["session_id"] for session in read(tmp_path / "out.jsonl")] == ["a"]


def test_a_file_that_is_no_text_at_all_is_named(tmp_path):
    (tmp_path / "in.xlsx").write_bytes(b"PK\x03\x04...")
    (tmp_path / "in.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "in.csv").write_bytes("session_id,role,content\n".encode("utf-16"))
    (tmp_path / "blank.csv").write_bytes(b"\n \n")
    with sqlite3.connect(tmp_path / "in.db") as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    said = {
        "in.xlsx": "is a ZIP archive or an Excel workbook; export it as CSV",
        "in.db": "is an SQLite database; export it as CSV",
        "in.parquet": "cannot be read as Parquet",
        "in.csv": "is UTF-16; convert it",
        "blank.csv": "the file is empty",
    }
    for name, words in said.items():
        assert f"{name}: {words}" in error_of(convert(tmp_path, "table", name=name))
    assert nothing_written(tmp_path)


# Dialogues that are none


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "hm"}] * 2, "roles never alternate: only the patient (user) speaks"),
        ([{"role": "assistant", "content": "hm"}] * 2, "roles never alternate: only the doctor (assistant) speaks"),
        ([{"role": "nurse", "content": "hm"}], "unknown role 'nurse'; name it in --user_roles, --assistant_roles or"),
        ([{"role": None, "content": "hm"}], "unknown role None"),
        ([{"role": "user", "content": " "}, {"role": "system", "content": "hm"}], "no message with any text is left"),
        ([], "no message with any text is left"),
        ("hm", "messages are text, not a list"),
        ([{"content": "hm"}], "messages.0: has no role"),
        ([{"role": "user", "content": 7}], "content is of type int, not text nor a list of parts"),
        ([{"role": "user", "content": [7]}], "content is a list, not text nor a list of parts"),
        (
            [{"role": "user", "content": "a", "time": 1}, {"role": "assistant", "content": "b"}],
            "message 1 has no time, others of the session have one",
        ),
        (
            [{"role": "user", "content": "a", "time": 1}, {"role": "assistant", "content": "b", "time": "2026-01-01"}],
            "times with and without a time zone, or as numbers, in one session",
        ),
        (
            [{"role": "user", "content": "a", "time": "noon"}, {"role": "assistant", "content": "b", "time": "noon"}],
            "time 'noon' is neither a number nor ISO 8601, 2026-03-01T10:00:00",
        ),
    ],
)
def test_a_session_that_is_no_dialogue_is_named(tmp_path, messages, said):
    write(tmp_path / "in.jsonl", CHAT, {"messages": messages})
    result = convert(tmp_path, "openai")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"in.jsonl:2: skipped: {said}")


def test_a_session_is_taken_once(tmp_path):
    write(tmp_path / "in.jsonl", CHAT, CHAT)
    result = convert(tmp_path, "openai")
    assert "in.jsonl:2: skipped: duplicate session_id 'a'" in result.stderr
    assert len(read(tmp_path / "out.jsonl")) == 1


def test_strict_stops_at_the_first_bad_row_and_writes_nothing(tmp_path):
    write(tmp_path / "in.jsonl", CHAT, "no JSON", {"messages": []})
    assert error_of(convert(tmp_path, "openai", "--strict")).startswith("in.jsonl:2: not JSON")
    assert nothing_written(tmp_path)


# Tables


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("session_id;role;content\n1;user;hm\n", "in.csv:1: its columns are separated by ';'; pass --separator ';'"),
        ("session_id\trole\tcontent\n1\tuser\thm\n", r"its columns are separated by '\t'; pass --separator '\t'"),
        (
            "id,role,content\n1,user,hm\n",
            "has no column 'session_id'; name it with --session_column, there are: 'id'",
        ),
        (f"{HEADER},role\n1,user,hm,user\n", "in.csv:1: has two columns 'role'; rename one"),
    ],
)
def test_a_table_with_other_columns_is_told_how_to_name_them(tmp_path, text, said):
    assert said in error_of(convert_table(tmp_path, text))
    assert nothing_written(tmp_path)


def test_a_csv_in_another_encoding_is_named_by_its_line(tmp_path):
    (tmp_path / "in.csv").write_bytes(f"{HEADER}\n1,user,感冒\n".encode("gb18030"))
    assert "in.csv:2: not UTF-8; convert it" in error_of(convert(tmp_path, "table", name="in.csv"))
    assert nothing_written(tmp_path)


def test_rows_of_a_csv_that_are_cut_wrongly_are_named_and_the_others_taken(tmp_path):
    # An unquoted comma, a row that breaks off, a session without an id, and a quote that is never closed
    good = '1,user,"a\n\nb"\n1,assistant,c\n'
    result = convert_table(tmp_path, f'{HEADER}\n2,user,a,b\n2,user\n{good},user,hm\n3,user,"a\n3,assistant,b\n')

    assert result.returncode == 1
    assert [line.partition(" skipped: ")[::2] for line in result.stderr.splitlines()] == [
        ("in.csv:2:", "4 fields instead of 3; text with a separator in it needs quotes"),
        ("in.csv:3:", "2 fields instead of 3; text with a separator in it needs quotes"),
        ("in.csv:8:", "session_id is '', no id"),
        (
            "in.csv:9:",
            "bad CSV: unexpected end of data; a quote that is never closed? Nothing up to line 10 could be used",
        ),
    ]
    (session,) = read(tmp_path / "out.jsonl")
    assert [message["content"] for message in session["messages"]] == ["a\n\nb", "c"]


def test_a_session_of_a_table_that_is_no_dialogue_is_named_with_its_first_row(tmp_path):
    result = convert_table(tmp_path, f"{HEADER}\n1,user,a\n1,assistant,b\n2,user,a\n2,user,b\n")
    assert result.stderr.splitlines() == [
        "in.csv:4: skipped: session '2': roles never alternate: only the patient (user) speaks"
    ]


def test_a_table_without_rows_holds_nothing(tmp_path):
    assert error_of(convert_table(tmp_path, HEADER)) == "in.csv: holds no usable rows of a flat table"
    assert nothing_written(tmp_path)


# What would not fit into the memory


@pytest.mark.parametrize(("source", "name"), [("openai", "in.jsonl"), ("table", "in.csv")])
def test_everything_on_one_line_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, source, name):
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    start = "[" if source == "openai" else HEADER
    (tmp_path / name).write_text(start + " " * (2 << 20))
    said = f"{name}:1: the line is longer than 1 MiB, one row a line is wanted; convert an array: jq -c '.[]'"
    assert error_of(convert(tmp_path, source, name=name)) == said
    assert nothing_written(tmp_path)


def test_pretty_printed_json_is_read_up_to_some_size(tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text(json.dumps([CHAT], indent=1))
    assert convert(tmp_path, "openai").returncode == 0

    monkeypatch.setattr(files, "LARGEST", 100)
    said = "is JSON over several lines and larger than 0 MiB, one row a line is wanted; convert it: jq -c '.[]'"
    assert said in error_of(convert(tmp_path, "openai", "--overwrite"))


def test_an_array_that_breaks_off_is_damaged(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps([CHAT, CHAT], indent=1)[:-20])
    assert "the file is JSON over several lines, and damaged" in error_of(convert(tmp_path, "openai"))
    assert nothing_written(tmp_path)


def test_a_damaged_first_line_does_not_hide_the_others(tmp_path):
    write(tmp_path / "in.jsonl", json.dumps(CHAT)[:-9], {**CHAT, "id": "b"})
    result = convert(tmp_path, "openai")
    assert result.stderr.startswith("in.jsonl:1: skipped: not JSON")
    assert [session["session_id"] for session in read(tmp_path / "out.jsonl")] == ["b"]


# Flags and files


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--role_column", "from"), "--role_column: only with --from table"),
        (("--user_roles", "x,Y", "--assistant_roles", "y"), "--user_roles and --assistant_roles both hold 'y'"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, flags, said):
    write(tmp_path / "in.jsonl", CHAT)
    assert error_of(convert(tmp_path, "openai", *flags)).startswith(said)


def test_a_separator_is_one_character(tmp_path):
    assert "--separator ', ': must be one character" in error_of(convert_table(tmp_path, HEADER, "--separator", ", "))


@pytest.mark.parametrize(("direction", "name"), [("--from", "openai"), ("--to", "upstream")])
def test_inputs_and_outputs_are_checked_before_anything_is_read(tmp_path, direction, name):
    assert error_of(run(tmp_path, CONVERT, direction, name, "in.jsonl", "out.jsonl")).endswith("in.jsonl: no such file")
    write(tmp_path / "in.jsonl", CHAT)
    write(tmp_path / "out.jsonl", "precious")
    assert "out.jsonl: exists; pass --overwrite" in error_of(
        run(tmp_path, CONVERT, direction, name, "in.jsonl", "out.jsonl")
    )
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    assert error_of(convert(tmp_path, "agentscope", name="in")) == "IN in: the folder holds no file"


def test_an_output_in_the_folder_that_is_read_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.jsonl", CHAT)
    result = run(tmp_path, CONVERT, "--from", "openai", "in", "in/out.jsonl")
    assert error_of(result) == "OUT in/out.jsonl: lies in the folder that is read; name another place"


def test_a_compressed_file_that_breaks_off_is_named(tmp_path):
    lines = "".join(json.dumps({**CHAT, "id": number}) + "\n" for number in range(1000))
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-99])
    assert "in.jsonl.gz: the compressed file is damaged or cut off" in error_of(
        convert(tmp_path, "openai", name="in.jsonl.gz")
    )
    assert nothing_written(tmp_path)


def test_compressed_files_are_read(tmp_path):
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(json.dumps({"messages": CHAT["messages"]}).encode()))
    assert convert(tmp_path, "openai", name="in.jsonl.gz").returncode == 0
    assert read(tmp_path / "out.jsonl")[0]["session_id"] == "in"


# To the published scripts


def test_what_needs_no_conversion_is_told_so(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    result = run(tmp_path, CONVERT, "--to", "upstream", "in.jsonl", "out.jsonl")
    assert result.returncode == 2
    assert "sessions, tasks, rollouts and evaluations need no conversion" in result.stderr.splitlines()[-1]
    assert nothing_written(tmp_path)


def test_samples_that_one_string_cannot_hold_are_named_and_counted(tmp_path):
    # The doctor quotes a chat: the published step B would take the second for a question more, and cut the first in two
    def sample(number, text):
        return {**SAMPLE, "cid": f"9_{number}", "remaining_chat": [{"role": "assistant", "content": text}]}

    write(tmp_path / "in.jsonl", sample(1, "you wrote\nuser: it hurts"), sample(2, "the user: fine"), SAMPLE)
    result = run(tmp_path, CONVERT, "--to", "upstream", "in.jsonl", "out.jsonl")
    assert result.returncode == 1
    assert [line.partition(": skipped: ")[0] for line in result.stderr.splitlines()] == ["in.jsonl:1", "in.jsonl:2"]
    assert summary_of(result) == {"samples": "3", "skipped: ambiguous text": "2", "written": "1"}
    (line,) = read(tmp_path / "out.jsonl")
    assert line["cid"] == "35310_1"
    assert line["remaining_chat"].startswith(
        "assistant: what does the stool look like?\nassistant: how many times a day?"
    )
