"""The sample logs that are committed: what the generator writes, and like RealMedConv in every respect."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from medical import MEDICAL, extract_answer, parse_info_set

from tuner.learn_to_ask.core.labels import decision_truth, to_task
from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import extraction_messages
from tuner.learn_to_ask.sample_data import generate

FOLDER = Path(generate.__file__).parent
EXAMPLES = Path(__file__).parents[2] / "examples"
SPLITS = ("train_origin.jsonl", "test_origin.jsonl")


def lines_of(split):
    return [json.loads(line) for line in (FOLDER / split).read_text(encoding="utf-8").splitlines()]


def sessions_of(split):
    return list(read_jsonl(FOLDER / split, Session, unique_key="session_id", report=ReadReport(), strict=True))


def tasks_of(split):
    """Steps A and B with the offline extractor, without files."""
    for session in sessions_of(split):
        for sample in segment(session):
            if decision_truth(sample.remaining_chat) == "stop":
                info_set = []
            else:
                info_set = parse_info_set(extract_answer(extraction_messages(sample.remaining_chat)))
            task = to_task(sample.model_copy(update={"info_set": info_set}))
            if task is not None:
                yield task


def test_the_generator_writes_the_committed_files_byte_for_byte(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate"])
    generate.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SPLITS)
    for split in SPLITS:
        assert (tmp_path / split).read_bytes() == (FOLDER / split).read_bytes(), split
    assert capsys.readouterr().out.count("wrote") == 2


def test_the_seed_decides_what_is_generated():
    def sessions(seed):
        return list(generate.generate_sessions(MEDICAL, count=20, first_id=1, seed=seed))

    assert sessions(1) == sessions(1)
    assert sessions(1) != sessions(2)


@pytest.mark.parametrize(("split", "least"), [("train_origin.jsonl", 300), ("test_origin.jsonl", 80)])
def test_there_are_enough_sessions_of_enough_diagnoses(split, least):
    sessions = sessions_of(split)
    assert len(sessions) >= least
    assert len({session.diagn for session in sessions}) >= 12


def test_no_session_stands_in_both_splits_and_none_twice():
    ids = Counter(session.session_id for split in SPLITS for session in sessions_of(split))
    assert set(ids.values()) == {1}


@pytest.mark.parametrize("split", SPLITS)
def test_every_line_has_the_keys_of_the_real_logs(split):
    for line in lines_of(split):
        assert list(line) == ["session_id", "diagn", "messages"]
        for message in line["messages"]:
            assert list(message) == ["role", "content"]
            assert message["content"].strip()


@pytest.mark.parametrize("split", SPLITS)
def test_session_ids_are_numbers_and_strings(split):
    assert {type(line["session_id"]) for line in lines_of(split)} == {int, str}


@pytest.mark.parametrize("split", SPLITS)
def test_some_sessions_open_with_a_greeting_and_most_with_the_patient(split):
    first_roles = Counter(line["messages"][0]["role"] for line in lines_of(split))
    assert first_roles["user"] > first_roles["assistant"] > 0


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_messages_of_one_role_follow_each_other(split, role):
    assert any(
        one["role"] == other["role"] == role
        for line in lines_of(split)
        for one, other in zip(line["messages"], line["messages"][1:], strict=False)
    )


@pytest.mark.parametrize("split", SPLITS)
def test_every_interview_ends_with_the_search_and_has_no_other(split):
    for line in lines_of(split):
        searches = [index for index, message in enumerate(line["messages"]) if "<med_search>" in message["content"]]
        assert searches == [len(line["messages"]) - 1]
        assert line["messages"][-1] == {"role": "assistant", "content": "<med_search>"}


@pytest.mark.parametrize("split", SPLITS)
def test_about_half_of_the_labelled_samples_stop(split):
    decisions = Counter(task.decision_truth for task in tasks_of(split))
    assert 0.4 <= decisions["stop"] / decisions.total() <= 0.6


@pytest.mark.parametrize("split", SPLITS)
def test_every_session_yields_one_sample_to_stop_at_and_every_other_has_information(split):
    tasks = list(tasks_of(split))
    stops = Counter(task.session_id for task in tasks if task.decision_truth == "stop")
    assert set(stops.values()) == {1}
    assert stops.keys() == {session.session_id for session in sessions_of(split)}
    assert all(task.info_truth for task in tasks if task.decision_truth == "continue")
    assert len({task.cid for task in tasks}) == len(tasks)


def test_the_committed_export_is_what_its_writer_writes(tmp_path):
    file = tmp_path / "out.csv"
    subprocess.run(
        [sys.executable, "-m", "tuner.learn_to_ask.sample_data.export", file], check=True, cwd=EXAMPLES.parent
    )
    assert file.read_bytes() == (EXAMPLES / "support_export.csv").read_bytes()
