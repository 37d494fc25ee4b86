"""Shards: disjoint, complete, by the session alone; merged they are the run without shards, byte by byte."""

import contextlib
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interviews import LINES, QUESTIONS, STOP, sample_of
from medical import MEDICAL, extract_answer
from run_scripts import EVALUATE, EXTRACT, PACKAGE, SESSION, run
from sessions import session
from step_three import good_grader, job, run_evaluation, run_rollout, task

from tuner.learn_to_ask.core.records import Sample, Session, Task
from tuner.learn_to_ask.data_prepare.build_dataset import build_dataset
from tuner.learn_to_ask.data_prepare.extract_info import EXTRACTOR_SAMPLING, extract_info
from tuner.learn_to_ask.data_prepare.merging import merge_shards
from tuner.learn_to_ask.engines.base import Reply
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.hold_interviews import hold_interviews
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_SAMPLING, TRAINED_SAMPLING, roll_out
from tuner.learn_to_ask.evaluation.rollout_files import check_earlier_run
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, write_jsonl
from tuner.learn_to_ask.shards import Shard, in_shard, note_path, parse_shard, shard_number

INTERVIEW = PACKAGE / "evaluation" / "interview.py"
MERGE = PACKAGE / "data_prepare" / "merge.py"
ids = st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=12)
numbers = st.integers(1, 9)


@given(ids, numbers)
def test_every_session_is_in_one_shard_and_one_only(session_ids, of):
    for session_id in session_ids:
        holding = [number for number in range(1, of + 1) if in_shard(session_id, Shard(number, of))]
        assert holding == [shard_number(session_id, of)]
    assert all(in_shard(session_id, None) for session_id in session_ids)


def test_the_shard_of_a_session_is_the_same_everywhere():
    # SHA-256 of "1" is 6b86b273ff34fce1…; 0x6b86b273ff34fce1 mod 4 is 1, so that it is the second
    assert shard_number("1", 4) == 2
    assert [shard_number(str(number), 2) for number in range(6)] == [
        1 + int(DIGESTS[number][15], 16) % 2 for number in range(6)
    ]


# The first 16 hex digits of the SHA-256 of 0 to 5, from sha256sum
DIGESTS = [
    "5feceb66ffc86f38",
    "6b86b273ff34fce1",
    "d4735e3a265e16ee",
    "4e07408562bedb8b",
    "4b227777d4dd1fc6",
    "ef2d127de37b942b",
]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "", "1/0", "-1/4", "1/4/4", " 1/4", "1.0/4"])
@pytest.mark.parametrize(
    ("script", "files"),
    [
        (EXTRACT, ("--engine", "offline", "--input_file", "in.jsonl", "--output_file", "out.jsonl")),
        (
            EVALUATE,
            ("--test_file_path", "in.jsonl", "--rollout_file_path", "out.jsonl", "--eval_file_path", "eval.jsonl"),
        ),
        (INTERVIEW, ("--test_file_path", "in.jsonl", "--output_file", "out.jsonl")),
    ],
    ids=["script 1", "script 3", "interviews"],
)
def test_a_shard_that_is_none_is_one_line(tmp_path, script, files, text):
    done = run(tmp_path, script, *files, f"--shard={text}")
    assert done.returncode == 2
    wanted = "write I/N, the I-th of N parts, with I from 1 to N, such as 1/4"
    assert done.stderr == f"error: --shard {text}: {wanted}\n"


def test_a_good_shard_is_parsed():
    assert (parse_shard("2/4"), parse_shard("1/1"), parse_shard(None)) == (Shard(2, 4), Shard(1, 1), None)


# Each step as a function of folder, shard and output, over logs of sessions that a property test draws.


def quiet(work, *arguments, **flags):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return work(*arguments, **flags)


def extract(folder, output, shard=None, *, answer=extract_answer, **overrides):
    given = {"settings": job(answer, **{"max_failures": 1.0, **overrides}), "domain": MEDICAL, "strict": False}
    return extract_info(input_file=folder / "logs.jsonl", output_file=output, shard=shard, **given)


def merge(files, input_file, output, **flags):
    return merge_shards(
        shard_files=list(files), input_file=input_file, output_file=output, **{"overwrite": False, **flags}
    )


dialogues = st.lists(
    st.sampled_from(["p: i cough", "p: since monday", "d: since when?", "d: <end>"]), min_size=1, max_size=5
)
logs = st.lists(
    st.tuples(st.text(min_size=1, max_size=4), dialogues), unique_by=lambda one: one[0], min_size=1, max_size=8
)


def some_fail(messages):
    """A model that cannot be read now and then, always on the same."""
    return extract_answer(messages) if len(str(messages)) % 3 else "no list"


@settings(max_examples=40)
@given(logs, st.integers(1, 6), st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]))
def test_merged_shards_of_script_1_are_the_run_without_shards(drawn, of, ending):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [session(*dialogue, session_id=session_id) for session_id, dialogue in drawn]
        write_jsonl(folder / "logs.jsonl", lines)
        whole, merged = folder / f"whole{ending}", folder / f"merged{ending}"
        try:
            quiet(extract, folder, whole, answer=some_fail)
        except UserError:
            return  # every answer failed: there is nothing to compare with
        files = [folder / f"shard{number}{ending}" for number in range(1, of + 1)]
        for number, file in enumerate(files, start=1):
            try:
                quiet(extract, folder, file, Shard(number, of), answer=some_fail)
            except UserError:
                return
        quiet(merge, reversed(files), folder / "logs.jsonl", merged)
        assert merged.read_bytes() == whole.read_bytes()


def write_tasks(folder, count, sessions):
    tasks = [
        Task.model_validate(task(f"{number % sessions}_{number}", "stop" if number % 3 else "continue", "a: b"))
        for number in range(count)
    ]
    write_jsonl(folder / "test.jsonl", tasks)


def three(folder, suffix=""):
    return folder / "test.jsonl", folder / f"rollout{suffix}.jsonl", folder / f"eval{suffix}.jsonl"


class Failing:
    """A policy that gives no answer to some."""

    description = "offline:failing"

    def __init__(self, fails):
        self.fails = fails

    def generate(self, requests, sampling):
        for request in requests:
            texts = [] if self.fails(request.messages[-1]["content"]) else ["Do you cough?"] * sampling.n
            yield Reply(request.key, texts, error="" if texts else "busy", final=not texts)

    def applied(self, sampling):
        return dict.fromkeys(("temperature", "top_p", "max_tokens", "repetition_penalty"))

    def summary(self):
        return []

    def close(self):
        pass


def roll(files, shard=None, fails=lambda text: False):
    return roll_out(
        test_file=files[0],
        rollout_file=files[1],
        settings=replace(job(good_grader, max_failures=1.0), make_engine=lambda: Failing(fails)),
        sampling=replace(ROLLOUT_SAMPLING, n=2),
        train_mode="Ra+Rs",
        domain=MEDICAL,
        shard=shard,
        strict=False,
    )


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.sets(st.integers(0, 11)))
def test_merged_shards_of_script_3_are_the_run_without_shards(count, sessions, of, failing):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(folder, count, sessions)

        def fails(text):
            return int(text.rsplit("_", 1)[1]) in failing

        try:
            for suffix, shard in [("", None), *((f".{number}", Shard(number, of)) for number in range(1, of + 1))]:
                quiet(roll, three(folder, suffix), shard, fails)
                quiet(run_evaluation, three(folder, suffix), shard=shard)
        except UserError:
            return  # every answer of a shard failed
        for what in ("rollout", "eval"):
            shards = [folder / f"{what}.{number}.jsonl" for number in range(1, of + 1)]
            quiet(merge, shards, folder / "test.jsonl", folder / f"{what}.merged.jsonl")
            assert (folder / f"{what}.merged.jsonl").read_bytes() == (folder / f"{what}.jsonl").read_bytes()


def policy(messages):
    asked = sum(message["role"] == "assistant" for message in messages)
    return [*QUESTIONS, STOP][min(asked, 3)]


def hold(folder, output, shard=None, **overrides):
    return hold_interviews(
        test_file=folder / "samples.jsonl",
        output_file=output,
        settings=job(policy, **overrides),
        sampling=TRAINED_SAMPLING,
        domain=MEDICAL,
        max_turns=5,
        shard=shard,
        strict=False,
    )


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_merged_shards_of_the_interviews_are_the_run_without_shards(tmp_path, of):
    # Given sessions of which some have nothing to ask for, and one whose first sample stands last
    items = ["symptom nature: watery stool"]
    samples = [sample_of(*LINES, items=items if number % 3 else [], session_id=str(number)) for number in range(9)]
    write_jsonl(tmp_path / "samples.jsonl", samples)
    hold(tmp_path, tmp_path / "whole.jsonl")
    files = [tmp_path / f"{number}.jsonl" for number in range(1, of + 1)]
    for number, file in enumerate(files, start=1):
        hold(tmp_path, file, Shard(number, of))
    merge(files, tmp_path / "samples.jsonl", tmp_path / "merged.jsonl")
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_four_commands_and_a_merge_are_one_command(tmp_path):
    # Given a log, and the parts of it that four machines work on
    write_jsonl(
        tmp_path / "logs.jsonl", [Session.model_validate({**SESSION, "session_id": number}) for number in range(20)]
    )
    command = (EXTRACT, "--engine", "offline", "--input_file", "logs.jsonl", "--output_file")
    for number in (1, 2, 3, 4):
        done = run(tmp_path, *command, f"{number}.parquet", "--shard", f"{number}/4")
        assert done.returncode == 0, done.stderr
        assert f" {number}/4, of 20 sessions" in done.stdout
    # When they are merged
    files = [f"{number}.parquet" for number in (4, 2, 1, 3)]
    done = run(tmp_path, MERGE, *files, "--input_file", "logs.jsonl", "--output_file", "merged.parquet")
    # Then the file is that of one command, and a second merge does not replace it by accident
    assert (done.returncode, done.stderr) == (0, "")
    assert run(tmp_path, *command, "whole.parquet").returncode == 0
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    done = run(tmp_path, MERGE, *files, "--input_file", "logs.jsonl", "--output_file", "merged.parquet")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "merged.parquet: exists; pass --overwrite" in done.stderr


@pytest.fixture
def shards(tmp_path):
    """Three finished shards of script 1 over eight sessions, and the whole run."""
    write_jsonl(
        tmp_path / "logs.jsonl", [Session.model_validate({**SESSION, "session_id": number}) for number in range(8)]
    )
    files = [tmp_path / f"{number}.jsonl" for number in (1, 2, 3)]
    for number, file in enumerate(files, start=1):
        extract(tmp_path, file, Shard(number, 3))
    extract(tmp_path, tmp_path / "whole.jsonl")
    return files


def refused(files, folder, **flags):
    """The one line that is said; nothing may have been written."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError) as caught:
        merge(files, flags.pop("input_file", folder / "logs.jsonl"), folder / "merged.jsonl", **flags)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_shard_holds_whole_sessions_and_says_what_it_is(shards, tmp_path):
    held = [
        {one.session_id for one in read_jsonl(file, Sample, unique_key="cid", report=ReadReport())} for file in shards
    ]
    assert sum(map(len, held)) == 8
    assert all(shard_number(one, 3) == number for number, these in enumerate(held, start=1) for one in these)
    note = json.loads(note_path(shards[1]).read_text())
    samples = len(shards[1].read_text().splitlines())
    assert {key: note[key] for key in ("shard", "of", "record", "records", "left_out")} == {
        "shard": 2, "of": 3, "record": "Sample", "records": samples, "left_out": 0,
    }  # fmt: skip
    assert sorted(note["settings"]) == ["engine", "fields", "input", "prompt", "sampling"]


def test_a_run_without_shards_leaves_no_note(shards, tmp_path):
    assert not note_path(tmp_path / "whole.jsonl").exists()
    # and one in the place of a shard takes its note away
    extract(tmp_path, shards[0], overwrite=True)
    assert not note_path(shards[0]).exists()


def test_a_missing_shard_is_named(shards, tmp_path):
    assert refused([shards[2], shards[0]], tmp_path) == "3.jsonl: shard 2/3 is missing; name the files of all 3"


def test_shards_that_overlap_are_named(shards, tmp_path):
    extract(tmp_path, tmp_path / "again.jsonl", Shard(2, 3))
    assert refused([*shards, tmp_path / "again.jsonl"], tmp_path).startswith("again.jsonl: is shard 2/3, as 2.jsonl is")


def test_shards_of_another_number_are_named(shards, tmp_path):
    extract(tmp_path, tmp_path / "other.jsonl", Shard(2, 4))
    said = refused([shards[0], tmp_path / "other.jsonl", shards[2]], tmp_path)
    assert said.startswith("other.jsonl: is shard 2/4, but 1.jsonl is shard 1/3")


def test_shards_of_another_model_are_named(shards, tmp_path):
    def another(messages):
        return "[]"

    extract(tmp_path, shards[1], Shard(2, 3), answer=another, overwrite=True)
    said = refused(shards, tmp_path)
    assert said.startswith("2.jsonl: comes from other settings than 1.jsonl: engine is offline:another, there offline:")


def test_shards_of_other_settings_are_named(shards, tmp_path):
    note = json.loads(note_path(shards[2]).read_text())
    note["settings"]["sampling"] = str(replace(EXTRACTOR_SAMPLING, temperature=0.0))
    note_path(shards[2]).write_text(json.dumps(note))
    assert "3.jsonl: comes from other settings than 1.jsonl: sampling is Sampling(temperature=0.0" in refused(
        shards, tmp_path
    )


def test_an_unfinished_shard_is_named(shards, tmp_path):
    shards[1].unlink()
    note_path(shards[1]).unlink()
    (tmp_path / "2.jsonl.journal").write_text('{"fingerprint": {}}\n')
    said = refused(shards, tmp_path)
    assert said.startswith("2.jsonl: is unfinished, 2.jsonl.journal holds what is done; finish it with")


def test_a_file_without_its_note_is_named(shards, tmp_path):
    note_path(shards[1]).unlink()
    assert "2.jsonl: 2.jsonl.shard.json, which says which shard it is, is not there; copy it along" in refused(
        shards, tmp_path
    )


def test_a_damaged_note_is_named(shards, tmp_path):
    note_path(shards[1]).write_text("{")
    assert refused(shards, tmp_path).startswith("2.jsonl.shard.json: the file: Invalid JSON")


def test_another_input_is_named(shards, tmp_path):
    (tmp_path / "other.jsonl").write_text((tmp_path / "logs.jsonl").read_text().replace("spicy", "sour") + "\n")
    assert refused(shards, tmp_path, input_file=tmp_path / "other.jsonl").startswith(
        "--input_file other.jsonl: the shards were made of another file"
    )


def test_a_shard_that_lacks_lines_is_named(shards, tmp_path):
    whole = shards[1].read_text().splitlines(keepends=True)
    shards[1].write_text("".join(whole[:-1]))
    first = json.loads(whole[-1])["cid"]
    said = refused(shards, tmp_path)
    assert said.startswith(f"2.jsonl: holds {len(whole) - 1} records and lacks 1, the first cid {first!r}, but its run")


def test_records_of_another_shard_are_named(shards, tmp_path):
    foreign = shards[0].read_text().splitlines(keepends=True)[0]
    whole = shards[1].read_text()
    shards[1].write_text(foreign + whole)
    cid = json.loads(foreign)["cid"]
    said = refused(shards, tmp_path)
    assert said.startswith(f"2.jsonl:1: cid {cid!r} is not in shard 2/3 of the input, or stands at another place there")


def test_a_damaged_line_is_named(shards, tmp_path):
    shards[1].write_text(shards[1].read_text()[:-20])
    assert refused(shards, tmp_path).startswith(f"2.jsonl:{len(shards[1].read_text().splitlines())}: not JSON")


def test_grades_of_rollouts_by_different_policies_do_not_go_together(tmp_path):
    write_tasks(tmp_path, 8, 8)

    def other_policy(messages):
        return "Do you sneeze?"

    files = [three(tmp_path, f".{number}") for number in (1, 2)]
    run_rollout(files[0], shard=Shard(1, 2))
    run_rollout(files[1], policy=other_policy, shard=Shard(2, 2))
    for number, names in enumerate(files, start=1):
        run_evaluation(names, shard=Shard(number, 2))
    said = refused([names[2] for names in files], tmp_path, input_file=tmp_path / "test.jsonl")
    assert ": policy is offline:" in said


def test_the_output_may_not_be_one_of_the_shards(shards, tmp_path):
    before = shards[0].read_bytes()
    with pytest.raises(UserError, match=r"--output_file .*1.jsonl: is read by this merge"):
        merge(shards, tmp_path / "logs.jsonl", shards[0], overwrite=True)
    assert shards[0].read_bytes() == before


def stop_after(answers):
    asked = iter(range(answers))

    def stopping(messages):
        if next(asked, None) is None:
            raise KeyboardInterrupt
        return extract_answer(messages)

    stopping.__name__ = "extract_answer"
    return stopping


def test_a_shard_is_resumed_as_itself_only(shards, tmp_path):
    output = tmp_path / "new.jsonl"
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, output, Shard(1, 3), answer=stop_after(2))
    for other in (Shard(2, 3), Shard(1, 4), None):
        with pytest.raises(UserError, match="cannot resume, the unfinished run differs: shard was 1/3, is now"):
            extract(tmp_path, output, other, resume=True)
    extract(tmp_path, output, Shard(1, 3), resume=True)
    assert output.read_bytes() == shards[0].read_bytes()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Shard(2, 3), "is shard 1/3, --shard asks for 2/3"),
        (Shard(1, 4), "is shard 1/3, --shard asks for 1/4"),
        (None, "is shard 1/3, no --shard is given"),
    ],
    ids=str,
)
def test_a_finished_shard_is_not_taken_for_another(shards, tmp_path, asked, said):
    with pytest.raises(UserError, match=said):
        extract(tmp_path, shards[0], asked, resume=True)
    assert extract(tmp_path, shards[0], Shard(1, 3), resume=True) == 0


def test_a_whole_output_is_not_taken_for_a_shard(shards, tmp_path):
    with pytest.raises(UserError, match="is complete and no shard, --shard asks for 1/3"):
        extract(tmp_path, tmp_path / "whole.jsonl", Shard(1, 3), resume=True)


def test_shards_in_parquet_become_the_dataset_of_the_whole(shards, tmp_path):
    files = [tmp_path / f"{number}.parquet" for number in (1, 2, 3)]
    for number, file in enumerate(files, start=1):
        extract(tmp_path, file, Shard(number, 3))
    merge(files, tmp_path / "logs.jsonl", tmp_path / "merged.jsonl.zst")
    for name in ("merged.jsonl.zst", "whole.jsonl"):
        build_dataset(
            input_file=tmp_path / name,
            output_file=tmp_path / f"{name}.train.jsonl",
            domain=MEDICAL,
            strict=True,
            overwrite=False,
        )
    assert (tmp_path / "merged.jsonl.zst.train.jsonl").read_bytes() == (
        tmp_path / "whole.jsonl.train.jsonl"
    ).read_bytes()


def test_script_3_goes_on_with_the_rollouts_of_its_shard(tmp_path):
    write_tasks(tmp_path, 8, 8)
    files = three(tmp_path)
    run_rollout(files, shard=Shard(1, 2))
    given = {"rollout_repeat": 3, "grade_repeat": 1, "max_missing": 0.0, "resume": True, "overwrite": False}
    check_earlier_run(*files, shard=Shard(1, 2), **given)
    with pytest.raises(UserError, match="is shard 1/2, no --shard is given"):
        check_earlier_run(*files, **given)
    run_evaluation(files, shard=Shard(1, 2))
    check_earlier_run(*files, shard=Shard(1, 2), **given)
    # a task of the shard is taken away
    files[1].write_text("".join(files[1].read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match="lacks 1 of"):
        check_earlier_run(*files, shard=Shard(1, 2), **given)
