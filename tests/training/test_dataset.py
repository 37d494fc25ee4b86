"""The staged training set: only the train split, only what workflow and judge read."""

import json

import pytest

from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.dataset import stage_dataset

TASK = {
    "cid": "1_0",
    "session_id": "1",
    "diagn": {"name": "no string"},
    "messages": [{"role": "user", "content": "it hurts"}],
    "decision_truth": "continue",
    "info_truth": "symptom: pain",
}


def write_lines(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_only_train_jsonl_is_staged_though_the_raw_logs_lie_beside_it(tmp_path):
    write_lines(tmp_path / "data" / "train.jsonl", TASK)
    write_lines(tmp_path / "data" / "train_origin.jsonl", {"session_id": 1, "messages": []})

    count = stage_dataset(tmp_path / "data", tmp_path / "taskset")

    assert count == 1
    assert [file.name for file in (tmp_path / "taskset").iterdir()] == ["train.jsonl"]
    staged = json.loads((tmp_path / "taskset" / "train.jsonl").read_text())
    assert staged == {key: TASK[key] for key in ("cid", "messages", "decision_truth", "info_truth")}


def test_a_task_without_a_decision_counts_as_continue(tmp_path):
    write_lines(tmp_path / "own.jsonl", {key: TASK[key] for key in ("cid", "session_id", "messages")})

    stage_dataset(tmp_path / "own.jsonl", tmp_path / "taskset")

    assert json.loads((tmp_path / "taskset" / "train.jsonl").read_text())["decision_truth"] == "continue"


def test_a_line_that_is_no_task_stops_with_file_and_line(tmp_path):
    write_lines(tmp_path / "train.jsonl", TASK, {**TASK, "cid": "1_2", "decision_truth": "maybe"})

    with pytest.raises(UserError, match=r"train\.jsonl:2: decision_truth"):
        stage_dataset(tmp_path, tmp_path / "taskset")

    assert not (tmp_path / "taskset" / "train.jsonl").exists()


def test_a_folder_without_a_train_split_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--data .*train\.jsonl: no such file"):
        stage_dataset(tmp_path, tmp_path / "taskset")
