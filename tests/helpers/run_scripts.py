"""The three numbered scripts, run in this process or as a user runs them, with a record for each."""

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import tuner.learn_to_ask

PACKAGE = Path(tuner.learn_to_ask.__file__).parent


EXTRACT = PACKAGE / "data_prepare" / "1_info_extract_pipeline.py"


BUILD = PACKAGE / "data_prepare" / "2_build_dataset.py"


EVALUATE = PACKAGE / "data_prepare" / "3_rollout_then_evaluate.py"


TRAIN = PACKAGE / "main.py"


CONVERT = PACKAGE / "data_prepare" / "convert.py"


SCRIPTS = [EXTRACT, BUILD, EVALUATE, TRAIN]


SESSION = {
    "session_id": 35310,
    "diagn": "Acute Gastroenteritis",
    "messages": [
        {"role": "user", "content": "i have diarrhea since last night"},
        {"role": "user", "content": "please help"},
        {"role": "assistant", "content": "what does the stool look like?"},
        {"role": "assistant", "content": "how many times a day?"},
        {"role": "user", "content": "it is like water"},
        {"role": "user", "content": "maybe five times"},
        {"role": "assistant", "content": "any drug allergies?"},
        {"role": "user", "content": "no allergies"},
        {"role": "assistant", "content": "<med_search>"},
    ],
}


SAMPLE = {
    "cid": "35310_1",
    "session_id": "35310",
    "diagn": "Acute Gastroenteritis",
    "messages": SESSION["messages"][:2],
    "remaining_chat": SESSION["messages"][2:],
    "info_set": ["symptom nature: watery stool", "symptom severity: 4-5 times daily"],
}


TASK = {
    "cid": "35310_1",
    "session_id": "35310",
    "diagn": "Acute Gastroenteritis",
    "messages": SESSION["messages"][:2],
    "decision_truth": "continue",
    "info_truth": "symptom nature: watery stool, symptom severity: 4-5 times daily",
}


def run(folder, script, *arguments):
    """Runs a script in this process, from a folder that is not the checkout; quick, for the many small cases."""
    command = [str(script), *map(str, arguments)]
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        patch.object(sys, "argv", command),
        patch.object(sys, "path", list(sys.path)),
        pytest.raises(SystemExit) as leaving,
    ):
        runpy.run_path(str(script), run_name="__main__")
    return subprocess.CompletedProcess(command, leaving.value.code, stdout.getvalue(), stderr.getvalue())


def run_as_a_user_does(folder, script, *arguments):
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def extract(folder, *arguments, run=run):
    """Script 1, without a model."""
    files = ("--input_file", "in.jsonl", "--output_file", "out.jsonl")
    return run(folder, EXTRACT, "--engine", "offline", *files, *arguments)


def build(folder, *arguments, run=run):
    """Script 2."""
    return run(folder, BUILD, "--input_file", "in.jsonl", "--output_file", "out.jsonl", *arguments)


def evaluate(folder, *arguments, run=run):
    """Script 3 with a policy that nobody serves, for runs that must not get as far as asking it."""
    return run(
        folder,
        EVALUATE,
        *("--eval_engine", "openai", "--eval_base_url", "http://127.0.0.1:9/v1", "--eval_model", "none"),
        *("--eval_request_retries", "0", "--max_retries", "0", "--grader_engine", "offline"),
        *("--test_file_path", "in.jsonl", "--rollout_file_path", "out.jsonl", "--eval_file_path", "eval.jsonl"),
        *arguments,
    )


STEPS = [
    pytest.param(extract, SESSION, id="1_info_extract_pipeline"),
    pytest.param(build, SAMPLE, id="2_build_dataset"),
    pytest.param(evaluate, TASK, id="3_rollout_then_evaluate"),
]


# The steps that need no model, which can therefore be run to their end.
MODEL_FREE = STEPS[:2]


def write(path, *records):
    """Records one a line; a string stands as it is."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names_in(folder):
    return sorted(os.listdir(folder))  # noqa: PTH208


def error_of(result):
    """The one line that an unusable input or setting is answered with."""
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def summary_of(result):
    """Label and value of every line of the closing summary, without its title and the seconds."""
    rows = [line.strip().rsplit("  ", 1) for line in result.stdout.splitlines()[1:]]
    return {label.strip(): value for label, value in rows if label.strip() != "seconds"}
