"""The journal of an unfinished run: what was paid for is never paid for twice."""

import fcntl
import json

import pytest
from pydantic import BaseModel

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import Journal, file_digest, text_digest

FINGERPRINT = {"engine": "a", "input": "0"}


class Result(BaseModel):
    """A record as short as possible, with a character of several bytes."""

    text: str


def result(index):
    return Result(text=f"咳{index}")


def line(index):
    return f'{{"text": "咳{index}"}}\n'


def output_of(*indices):
    return "".join(map(line, indices)).encode()


def open_journal(output, *, fingerprint=FINGERPRINT, resume=False, overwrite=False):
    return Journal(output, fingerprint=fingerprint, resume=resume, overwrite=overwrite)


def leave_unfinished(output, *indices):
    """A run that ends early after the results with these indices; returns its journal."""
    journal = open_journal(output)
    for index in indices:
        journal.append(index, result(index))
    journal.close()
    return journal.path


def complete(journal, count):
    """What every run does: the missing results, then the output."""
    for index in range(count):
        if not journal.done(index):
            journal.append(index, result(index))
    return journal.finish(count)


def test_results_are_written_in_input_order_whatever_order_they_came_in(tmp_path):
    output = tmp_path / "out.jsonl"
    journal = open_journal(output)
    for index in (2, 0, 3, 1):
        journal.append(index, result(index))
    assert journal.finish(4) == 4
    assert output.read_bytes() == output_of(0, 1, 2, 3)
    assert list(tmp_path.iterdir()) == [output]


def test_results_that_never_came_are_left_out(tmp_path):
    output = tmp_path / "out.jsonl"
    journal = open_journal(output)
    journal.append(3, result(3))
    journal.append(1, result(1))
    assert journal.finish(6) == 2
    assert output.read_bytes() == output_of(1, 3)


def test_a_run_without_results_makes_an_empty_output(tmp_path):
    journal = open_journal(tmp_path / "deep" / "out.jsonl")
    assert journal.finish(0) == 0
    assert (tmp_path / "deep" / "out.jsonl").read_bytes() == b""


def test_the_journal_knows_what_is_done(tmp_path):
    journal = open_journal(tmp_path / "out.jsonl")
    assert not journal.done(0)
    journal.append(2, result(2))
    assert [journal.done(index) for index in range(4)] == [False, False, True, False]
    journal.close()


def test_a_result_survives_the_process_as_soon_as_it_is_appended(tmp_path):
    journal = open_journal(tmp_path / "out.jsonl")
    journal.append(0, result(0))
    assert json.loads(journal.path.read_bytes().splitlines()[-1]) == {
        "index": 0,
        "failed": 0,
        "record": {"text": "咳0"},
    }
    assert not journal.output.exists()
    journal.close()


def test_an_unfinished_run_is_continued(tmp_path):
    output = tmp_path / "out.jsonl"
    leave_unfinished(output, 2, 0)
    journal = open_journal(output, resume=True)
    assert journal.resumed == 2
    assert [journal.done(index) for index in range(4)] == [True, False, True, False]
    assert complete(journal, 4) == 4
    assert output.read_bytes() == output_of(0, 1, 2, 3)
    assert list(tmp_path.iterdir()) == [output]


def test_a_run_can_be_continued_more_than_once(tmp_path):
    output = tmp_path / "out.jsonl"
    leave_unfinished(output, 1)
    second = open_journal(output, resume=True)
    second.append(0, result(0))
    second.close()
    third = open_journal(output, resume=True)
    assert third.resumed == 2
    complete(third, 3)
    assert output.read_bytes() == output_of(0, 1, 2)


def test_with_nothing_to_continue_a_run_starts_from_the_beginning(tmp_path):
    journal = open_journal(tmp_path / "out.jsonl", resume=True)
    assert journal.resumed == 0
    complete(journal, 2)
    assert journal.output.read_bytes() == output_of(0, 1)


def test_a_last_line_that_a_crash_cut_off_is_dropped(tmp_path):
    output = tmp_path / "out.jsonl"
    path = leave_unfinished(output, 0, 1)
    path.write_bytes(path.read_bytes()[:-3])
    journal = open_journal(output, resume=True)
    assert [journal.done(index) for index in range(2)] == [True, False]
    complete(journal, 2)
    assert output.read_bytes() == output_of(0, 1)


def test_a_last_line_that_a_crash_filled_with_zeros_is_dropped(tmp_path):
    output = tmp_path / "out.jsonl"
    path = leave_unfinished(output, 0)
    path.write_bytes(path.read_bytes() + b"\x00" * 20 + b"\n")
    journal = open_journal(output, resume=True)
    assert journal.resumed == 1
    complete(journal, 2)
    assert output.read_bytes() == output_of(0, 1)


def test_the_journal_of_an_earlier_version_is_continued(tmp_path):
    # Given results whose lines are written otherwise
    output = tmp_path / "out.jsonl"
    path = leave_unfinished(output, 0, 1)
    first, *results = path.read_text().splitlines()
    others = [json.dumps({"failed": False, **json.loads(one), "index": number}) for number, one in enumerate(results)]
    path.write_text("\n".join([first, *others, ""]).replace('"failed": 0', '"failed": false'))
    journal = open_journal(output, resume=True)
    assert (journal.resumed, journal.failed) == (2, 0)
    complete(journal, 3)
    assert output.read_bytes() == output_of(0, 1, 2)


@pytest.mark.parametrize("doubtful", [0, 60, 1 << 22])  # bytes at the end that are looked at closely
def test_a_run_that_was_killed_anywhere_continues_to_the_same_output(tmp_path, monkeypatch, doubtful):
    monkeypatch.setattr("tuner.learn_to_ask.journal._DOUBTFUL_BYTES", doubtful)
    # Given the journal of a run whose four results came out of order
    whole = leave_unfinished(tmp_path / "whole.jsonl", 2, 0, 3, 1).read_bytes()
    lengths = [len(part) for part in whole.splitlines(keepends=True)]
    for cut in range(len(whole) + 1):
        # When the machine stops with any number of its bytes on the disk, and the run is continued
        output = tmp_path / "out.jsonl"
        (tmp_path / "out.jsonl.journal").write_bytes(whole[:cut])
        journal = open_journal(output, resume=True)
        # Then the complete results are kept, and the output is that of an undisturbed run
        complete_lines = sum(sum(lengths[: number + 1]) <= cut for number in range(len(lengths)))
        assert journal.resumed == max(0, complete_lines - 1), cut
        assert complete(journal, 4) == 4, cut
        assert output.read_bytes() == output_of(0, 1, 2, 3), cut
        assert not journal.path.exists(), cut
        output.unlink()


def test_an_unfinished_run_is_not_continued_by_accident(tmp_path):
    path = leave_unfinished(tmp_path / "out.jsonl", 0)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"unfinished run.*--resume.*--overwrite"):
        open_journal(tmp_path / "out.jsonl")
    assert path.read_bytes() == before


def test_an_unfinished_run_is_dropped_on_demand(tmp_path):
    leave_unfinished(tmp_path / "out.jsonl", 0, 1)
    journal = open_journal(tmp_path / "out.jsonl", fingerprint={"engine": "b"}, overwrite=True)
    assert journal.resumed == 0
    journal.append(1, result(1))
    assert journal.finish(2) == 1
    assert journal.output.read_bytes() == output_of(1)


def test_an_empty_journal_is_no_unfinished_run(tmp_path):
    (tmp_path / "out.jsonl.journal").touch()
    journal = open_journal(tmp_path / "out.jsonl")
    complete(journal, 1)
    assert journal.output.read_bytes() == output_of(0)


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        ({"engine": "b", "input": "0"}, "engine was a, is now b"),
        ({"engine": "a", "input": "1"}, "input was 0, is now 1"),
        ({"engine": "a"}, "input was 0, is now None"),
        ({"engine": "a", "input": "0", "prompt": "p"}, "prompt was None, is now p"),
        ({"engine": "b", "input": "1"}, "engine was a, is now b; input was 0, is now 1"),
    ],
)
def test_results_that_depend_on_something_else_are_not_mixed_and_the_difference_is_named(tmp_path, now, difference):
    path = leave_unfinished(tmp_path / "out.jsonl", 0)
    before = path.read_bytes()
    with pytest.raises(UserError) as caught:
        open_journal(tmp_path / "out.jsonl", fingerprint=now, resume=True)
    assert f"differs: {difference}. " in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert path.read_bytes() == before


def test_a_refused_run_does_not_keep_the_journal_locked(tmp_path):
    path = leave_unfinished(tmp_path / "out.jsonl", 0)
    with pytest.raises(UserError) as caught:
        open_journal(tmp_path / "out.jsonl", fingerprint={"engine": "b"}, resume=True)
    with path.open("a+b") as file:  # while the error is still around
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert "differs" in str(caught.value)


# The lock belongs to the open file, so a second one in this process stands for a second process.


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}, {}], ids=str)
def test_a_second_run_cannot_touch_the_journal_of_one_that_is_still_running(tmp_path, flags):
    # Given a run that has a result already
    first = open_journal(tmp_path / "out.jsonl")
    first.append(1, result(1))
    # When a second one is started, then it is told why it cannot be
    with pytest.raises(UserError, match="another run is writing it"):
        open_journal(tmp_path / "out.jsonl", **flags)
    # And the first one ends as if nothing had been
    assert complete(first, 3) == 3
    assert first.output.read_bytes() == output_of(0, 1, 2)


def test_a_run_that_ended_unlocks_its_journal(tmp_path):
    first = open_journal(tmp_path / "out.jsonl")
    first.append(0, result(0))
    first.close()
    second = open_journal(tmp_path / "out.jsonl", resume=True)
    assert second.resumed == 1
    second.close()


def test_closing_twice_or_after_the_end_does_no_harm(tmp_path):
    journal = open_journal(tmp_path / "out.jsonl")
    journal.append(0, result(0))
    journal.finish(1)
    journal.close()
    journal.close()
    assert journal.output.read_bytes() == output_of(0)


def test_digests_tell_texts_and_files_apart(tmp_path):
    (tmp_path / "a").write_text("咳", encoding="utf-8")
    assert text_digest("咳") == file_digest(tmp_path / "a")
    assert text_digest("咳") != text_digest("咳 ")
    # The first 16 hex digits of SHA-256 of nothing
    assert text_digest("") == "e3b0c44298fc1c14"
