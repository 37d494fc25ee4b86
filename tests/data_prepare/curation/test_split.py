"""The command that splits, and the one that looks for leaks between two files."""

import runpy
import sys

import pytest
from medical import MEDICAL
from run_scripts import PACKAGE, names_in, read, write
from sessions import END, record, session

from tuner.learn_to_ask.sample_data.generate import generate_sessions

TRAIN = PACKAGE / "sample_data" / "train_origin.jsonl"
TEST = PACKAGE / "sample_data" / "test_origin.jsonl"


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Exit code, summary and errors of the command, in this process."""

    def split(*flags):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["split", *map(str, flags)])
        with pytest.raises(SystemExit) as leaving:
            runpy.run_module("tuner.learn_to_ask.data_prepare.split", run_name="__main__")
        said = capsys.readouterr()
        return leaving.value.code, said.out, said.err

    return split


OUTPUTS = ("--train", "train.jsonl", "--test", "test.jsonl")


def ids(file):
    return [str(line["session_id"]) for line in read(file)]


def changed(line, number):
    """The same interview under another id, a word longer."""
    messages = [*line["messages"][:-1], {"role": "user", "content": "thanks"}, line["messages"][-1]]
    return {**line, "session_id": number, "messages": messages}


def test_every_session_is_on_one_side_in_the_order_of_the_input(tmp_path, command):
    lines = list(generate_sessions(MEDICAL, count=120, first_id=1, seed=3))
    write(tmp_path / "in.jsonl", *lines)

    code, summary, errors = command("in.jsonl", *OUTPUTS)

    assert (code, errors) == (0, "")
    train, test = ids(tmp_path / "train.jsonl"), ids(tmp_path / "test.jsonl")
    order = [str(line["session_id"]) for line in lines]
    assert sorted(train + test, key=order.index) == order
    assert (train, test) == (sorted(train, key=order.index), sorted(test, key=order.index))
    assert len(test) == 24
    assert "test                               24 (20.0%)" in summary
    assert names_in(tmp_path) == ["in.jsonl", "test.jsonl", "train.jsonl"]
    # Twelve diagnoses with ten sessions each
    assert {line["diagn"] for line in read(tmp_path / "test.jsonl")} == {line["diagn"] for line in lines}


def test_the_seed_decides(tmp_path, command):
    write(tmp_path / "in.jsonl", *generate_sessions(MEDICAL, count=60, first_id=1, seed=3))
    drawn = []
    for seed in (0, 0, 1):
        command("in.jsonl", *OUTPUTS, f"--seed={seed}", "--overwrite")
        drawn.append(ids(tmp_path / "test.jsonl"))

    assert drawn[0] == drawn[1] != drawn[2]


def test_near_duplicates_stay_on_one_side(tmp_path, command):
    # Given sessions of which every one has a copy that is a word longer
    lines = list(generate_sessions(MEDICAL, count=40, first_id=1, seed=3))
    write(tmp_path / "in.jsonl", *lines, *(changed(line, f"copy of {line['session_id']}") for line in lines))

    code, summary, _ = command("in.jsonl", *OUTPUTS)

    assert code == 0
    test = set(ids(tmp_path / "test.jsonl"))
    assert {f"copy of {one}" for one in test if not one.startswith("copy")} == {
        one for one in test if one.startswith("copy")
    }
    assert "near-duplicates, kept on one side  80" in summary
    assert command("--check_only", *OUTPUTS)[0] == 0


def test_a_planted_leak_is_found(tmp_path, command):
    # Given a test set with a session of the training set under another id, one a word longer, and one under its own id
    train, test = read(TRAIN)[:100], read(TEST)[:50]
    planted = [{**train[3], "session_id": "copy"}, changed(train[7], "longer")]
    apart = {**test[0], "session_id": train[9]["session_id"]}
    write(tmp_path / "train.jsonl", *train)
    write(tmp_path / "test.jsonl", *test[1:], *planted, apart)

    code, summary, errors = command("--check_only", *OUTPUTS)

    assert code == 1
    own, copy, longer = errors.splitlines()
    assert own == f"test.jsonl: session {train[9]['session_id']} is in train.jsonl as well"
    assert copy == f"test.jsonl: session copy is 100% like session {train[3]['session_id']} of train.jsonl"
    assert longer.startswith("test.jsonl: session longer is ")
    assert longer.endswith(f"% like session {train[7]['session_id']} of train.jsonl")
    assert "session ids on both sides                     1" in summary
    assert "test sessions with a near-duplicate in train  2" in summary


def test_the_sample_logs_do_not_leak(command):
    assert command("--check_only", "--train", TRAIN, "--test", TEST)[0] == 0


def test_a_share_that_near_duplicates_make_impossible_is_warned_of(tmp_path, command):
    same = [session("p: a cough", "d: since when?", "p: today", f"d: {END}", session_id=str(each)) for each in range(9)]
    other = session("p: my knee hurts when i walk", "d: which one?", "p: the left one", f"d: {END}", session_id="other")
    write(tmp_path / "in.jsonl", *map(record, [*same, other]))

    code, _, errors = command("in.jsonl", *OUTPUTS, "--test_share=0.3")

    assert code == 0
    assert errors.startswith("warning: the test set is 10.0% of the sessions, 30.0% were asked for")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (OUTPUTS, "IN: name the sessions to split, or pass --check_only"),
        (["in.jsonl", "--check_only", *OUTPUTS], "IN in.jsonl: --check_only reads --train and --test only"),
        (["in.jsonl", "--train", "in.jsonl", "--test", "test.jsonl"], "--train in.jsonl, --test test.jsonl: name two"),
        (["in.jsonl", *OUTPUTS, "--test_share=0"], "--test_share 0: is not above 0 and up to 1"),
        (["in.jsonl", *OUTPUTS, "--test_share=0.01"], "IN in.jsonl: all 4 sessions would be in the training set"),
        (["--check_only", *OUTPUTS], "--train train.jsonl: no such file"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_named(tmp_path, command, flags, said):
    write(tmp_path / "in.jsonl", *generate_sessions(MEDICAL, count=4, first_id=1, seed=3))

    code, _, errors = command(*flags)

    assert code == 2
    assert errors.startswith(f"error: {said}")
    assert names_in(tmp_path) == ["in.jsonl"]
