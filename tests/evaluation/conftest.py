"""The files of one run of script 3."""

import json

import pytest
from step_three import TASKS


@pytest.fixture
def files(tmp_path):
    test_file = tmp_path / "test.jsonl"
    test_file.write_text("".join(json.dumps(one) + "\n" for one in TASKS))
    return test_file, tmp_path / "rollout.jsonl", tmp_path / "eval.jsonl"
