"""The three scripts as a user runs them: outputs, exit codes, and one clear line when something is wrong."""

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
from tuner.learn_to_ask.data_prepare.extract_info import extract_info
from tuner.learn_to_ask.engines.base import Reply
from tuner.learn_to_ask.engines.offline import OfflineEngine, extract_answer

PACKAGE = Path(tuner.learn_to_ask.__file__).parent
EXTRACT = PACKAGE / "data_prepare" / "1_info_extract_pipeline.py"
BUILD = PACKAGE / "data_prepare" / "2_build_dataset.py"
EVALUATE = PACKAGE / "data_prepare" / "3_rollout_then_evaluate.py"
TRAIN = PACKAGE / "main.py"
SCRIPTS = [EXTRACT, BUILD, EVALUATE, TRAIN]
HEAVY = {"torch", "vllm", "transformers", "ray", "trinity"}

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


# From logs to a dataset


def test_a_log_becomes_samples_and_samples_become_tasks(tmp_path):
    # Given one session, its turns ending at the messages 1, 5 and 7
    write(tmp_path / "in.jsonl", SESSION)
    # When step A runs, then there is a sample for each turn
    result = extract(tmp_path, run=run_as_a_user_does)
    assert (result.returncode, result.stderr) == (0, "")
    samples = read(tmp_path / "out.jsonl")
    assert samples == [
        SAMPLE,
        # The patient only answers the question about allergies, which is no information
        {
            **SAMPLE,
            "cid": "35310_5",
            "messages": SESSION["messages"][:6],
            "remaining_chat": SESSION["messages"][6:],
            "info_set": [],
        },
        {
            **SAMPLE,
            "cid": "35310_7",
            "messages": SESSION["messages"][:8],
            "remaining_chat": SESSION["messages"][8:],
            "info_set": [],
        },
    ]
    # When step B runs, then the one to continue from without information is gone
    files = ("--input_file", "out.jsonl", "--output_file", "new/train.jsonl")
    result = run_as_a_user_does(tmp_path, BUILD, *files)
    assert (result.returncode, result.stderr) == (0, "")
    tasks = read(tmp_path / "new" / "train.jsonl")
    assert tasks == [
        TASK,
        {
            **TASK,
            "cid": "35310_7",
            "messages": SESSION["messages"][:8],
            "decision_truth": "stop",
            "info_truth": "",
        },
    ]
    assert list(tasks[0]) == ["cid", "session_id", "diagn", "messages", "decision_truth", "info_truth"]
    # And nothing else is left
    assert names_in(tmp_path) == ["in.jsonl", "new", "out.jsonl"]
    assert names_in(tmp_path / "new") == ["train.jsonl"]


def test_the_sample_logs_run_through_both_steps(tmp_path):
    (tmp_path / "in.jsonl").write_bytes((PACKAGE / "sample_data" / "train_origin.jsonl").read_bytes())
    assert extract(tmp_path, "--strict").returncode == 0
    result = run(tmp_path, BUILD, "--input_file", "out.jsonl", "--output_file", "train.jsonl", "--strict")
    assert (result.returncode, result.stderr) == (0, "")
    sessions, samples, tasks = (read(tmp_path / name) for name in ("in.jsonl", "out.jsonl", "train.jsonl"))
    assert len(tasks) <= len(samples)
    assert {task["session_id"] for task in tasks} == {str(session["session_id"]) for session in sessions}
    assert {task["decision_truth"] for task in tasks} == {"continue", "stop"}
    assert "built: train.jsonl" in result.stdout


@pytest.mark.parametrize(("step", "good"), MODEL_FREE)
def test_a_bad_line_is_reported_and_skipped(tmp_path, step, good):
    write(tmp_path / "in.jsonl", "no JSON", good)
    result = step(tmp_path)
    assert result.returncode == 0
    assert result.stderr.splitlines() == ["in.jsonl:1: skipped: not JSON: Expecting value at column 1"]
    assert "skipped: not JSON" in result.stdout
    assert {record["session_id"] for record in read(tmp_path / "out.jsonl")} == {"35310"}


@pytest.mark.parametrize(("step", "good"), MODEL_FREE)
def test_a_second_run_with_overwrite_writes_the_same_bytes(tmp_path, step, good):
    write(tmp_path / "in.jsonl", good)
    assert step(tmp_path).returncode == 0
    first = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_text("old\n", encoding="utf-8")
    assert step(tmp_path, "--overwrite").returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == first


# From a rollout file to metrics


def test_finished_rollouts_are_graded_and_averaged(tmp_path):
    # Given rollouts that are complete: a perfect question, a stop too early, a related double question ...
    continue_task = {
        **TASK,
        "rollouts": [
            "Is the stool watery or loose?",
            "<stop />",
            "Did you eat seafood? Or leftovers?",
        ],
    }
    # ... and an exact stop, a stop in a longer text, a question too many
    stop_task = {
        **TASK,
        "cid": "35310_7",
        "decision_truth": "stop",
        "info_truth": "",
        "rollouts": ["<stop />", "Bye. <stop />", "Any fever?"],
    }
    write(tmp_path / "in.jsonl", *({**task, "rollouts": None} for task in (continue_task, stop_task)))
    write(tmp_path / "out.jsonl", continue_task, stop_task)
    # When script 3 is to go on, then the policy is not needed any more
    result = evaluate(tmp_path, "--resume", run=run_as_a_user_does)
    assert (result.returncode, result.stderr) == (0, "")
    graded = read(tmp_path / "eval.jsonl")
    assert [{key: record[key] for key in continue_task} for record in graded] == [continue_task, stop_task]
    assert [
        [(grade["action_score"], grade["format_score"], grade["content_score"]) for grade in record["grades"]]
        for record in graded
    ] == [
        [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.5, 0.5)],
        [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)],
    ]
    printed = dict(line.strip().rsplit("  ", 1) for line in result.stdout.splitlines() if "  " in line.strip())
    metrics = {title.strip(): value.strip() for title, value in printed.items()}
    assert metrics["Avg. continue content"] == "0.500"  # (1 + 0 + 0.5) / 3
    assert metrics["Win rate (continue content)"] == "0.333"
    assert metrics["Avg. continue content if correct"] == "0.750"
    assert metrics["Win rate (continue content) if correct"] == "0.500"
    assert metrics["Avg. continue decision accuracy"] == "0.667"
    assert metrics["Avg. stop decision accuracy"] == "0.667"
    assert metrics["Total decision accuracy"] == "0.667"
    assert metrics["Response format quality"] == "0.417"  # (1 + 0 + 0.5 + 1 + 0 + 0) / 6
    assert metrics["Total reward"] == "2.250"  # (4 + 0 + 2.5 + 4 + 3 + 0) / 6
    # When it is to go on once more, then all is there already, and the metrics are the same
    again = evaluate(tmp_path, "--resume")
    assert again.returncode == 0
    assert again.stdout.splitlines()[-9:] == result.stdout.splitlines()[-9:]
    assert names_in(tmp_path) == ["eval.jsonl", "in.jsonl", "out.jsonl"]


# Unusable inputs and settings


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_a_missing_input_is_named(tmp_path, step, good):
    assert error_of(step(tmp_path, run=run_as_a_user_does)).endswith("in.jsonl: no such file")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_empty_input_is_named(tmp_path, step, good):
    (tmp_path / "in.jsonl").touch()
    assert error_of(step(tmp_path)).endswith("in.jsonl: the file is empty")
    assert names_in(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_existing_output_is_left_alone_unless_it_may_be_overwritten(tmp_path, step, good):
    write(tmp_path / "in.jsonl", good)
    write(tmp_path / "out.jsonl", "precious")
    error = error_of(step(tmp_path))
    assert "out.jsonl: exists" in error
    assert "--overwrite" in error
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious\n"
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_output_that_is_a_folder_is_refused(tmp_path, step, good):
    write(tmp_path / "in.jsonl", good)
    (tmp_path / "out.jsonl").mkdir()
    assert "out.jsonl: is a folder" in error_of(step(tmp_path, "--overwrite"))


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_an_output_whose_folder_cannot_be_made_is_refused(tmp_path, step, good):
    # Given a file where the output's folder should be
    write(tmp_path / "in.jsonl", good)
    write(tmp_path / "file", "precious")
    flag = "--rollout_file_path" if step is evaluate else "--output_file"
    error = error_of(step(tmp_path, flag, "file/out.jsonl"))  # the last of repeated flags counts
    assert "file" in error
    assert (tmp_path / "file").read_text(encoding="utf-8") == "precious\n"


@pytest.mark.parametrize(("step", "good"), STEPS)
def test_strict_stops_at_the_first_bad_line_and_writes_nothing(tmp_path, step, good):
    # Blank lines are no bad lines
    write(tmp_path / "in.jsonl", "", '{"session_id": 1}', good)
    error = error_of(step(tmp_path, "--strict"))
    assert error.startswith("in.jsonl:2: ")
    assert "Field required" in error
    assert not (tmp_path / "out.jsonl").exists()
    assert not [name for name in names_in(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize(("step", "good"), MODEL_FREE)
def test_a_run_that_stops_keeps_the_output_it_was_to_overwrite(tmp_path, step, good):
    write(tmp_path / "in.jsonl", good, "no JSON")
    write(tmp_path / "out.jsonl", "precious")
    assert error_of(step(tmp_path, "--strict", "--overwrite")).startswith("in.jsonl:2: not JSON")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious\n"
    assert not [name for name in names_in(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize(("step", "good"), MODEL_FREE)
def test_an_input_without_one_usable_line_is_refused_and_nothing_is_written(tmp_path, step, good):
    write(tmp_path / "in.jsonl", "no JSON", "{}")
    result = step(tmp_path)
    assert result.returncode == 2, result.stdout
    *skipped, error = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in skipped] == ["in.jsonl:1", "in.jsonl:2"]
    assert error.startswith("error: --input_file in.jsonl: ")
    assert not (tmp_path / "out.jsonl").exists()
    assert not [name for name in names_in(tmp_path) if name.endswith(".partial")]


def test_samples_with_nothing_to_reward_make_no_dataset(tmp_path):
    write(tmp_path / "in.jsonl", {**SAMPLE, "info_set": []}, {**SAMPLE, "cid": "35310_2", "info_set": None})
    assert "no sample is left" in error_of(build(tmp_path))
    assert names_in(tmp_path) == ["in.jsonl"]


def test_an_existing_evaluation_is_noticed_before_the_policy_is_asked(tmp_path):
    # Rollouts of a large model take hours; what is known beforehand is said beforehand.
    write(tmp_path / "in.jsonl", TASK)
    write(tmp_path / "eval.jsonl", "precious")
    error = error_of(evaluate(tmp_path))
    assert "--eval_file_path eval.jsonl: exists" in error
    assert "--overwrite" in error
    assert names_in(tmp_path) == ["eval.jsonl", "in.jsonl"]


@pytest.mark.parametrize("part", ["eval", "grader"])
def test_a_model_path_that_leads_nowhere_is_named_before_anything_is_asked(tmp_path, part):
    write(tmp_path / "in.jsonl", TASK)
    (tmp_path / "empty").mkdir()
    error = error_of(evaluate(tmp_path, f"--{part}_engine", "transformers", f"--{part}_model_path", "empty"))
    assert error.startswith(f"--{part}_model_path empty: holds no model. Looked for: ")
    assert names_in(tmp_path) == ["empty", "in.jsonl"]


@pytest.mark.parametrize(
    ("engine", "path", "place"),
    [("transformers", "tinker://a/sampler_weights/b", "on a Tinker service"), ("tinker", "adapter", "on this machine")],
)
def test_an_engine_that_cannot_have_the_weights_is_told_so(tmp_path, engine, path, place):
    write(tmp_path / "in.jsonl", TASK)
    (tmp_path / "adapter").mkdir()
    write(tmp_path / "adapter" / "adapter_config.json", {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "a/b"})
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    error = error_of(evaluate(tmp_path, "--eval_engine", engine, "--eval_model_path", path))
    assert error == f"--eval_model_path {path}: its weights are {place}, the {engine} engine cannot use them"


def test_an_unfinished_run_is_neither_continued_nor_dropped_by_accident(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    result = {"index": 0, "failed": 0, "record": {}}
    write(tmp_path / "out.jsonl.journal", {"fingerprint": {"engine": "offline:another"}}, result)
    before = (tmp_path / "out.jsonl.journal").read_bytes()
    error = error_of(extract(tmp_path))
    assert "--resume" in error and "--overwrite" in error
    assert "engine was offline:another, is now offline:extract_answer" in error_of(extract(tmp_path, "--resume"))
    assert (tmp_path / "out.jsonl.journal").read_bytes() == before
    assert extract(tmp_path, "--overwrite").returncode == 0
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_journal_without_any_result_stands_in_nobodys_way(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    write(tmp_path / "out.jsonl.journal", {"fingerprint": {"engine": "offline:another"}})
    assert extract(tmp_path).returncode == 0
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    write(tmp_path / "out.jsonl", "precious")
    result = extract(tmp_path, "--resume")
    assert (result.returncode, result.stderr) == (0, "")
    assert "already complete" in result.stdout
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious\n"


@pytest.mark.parametrize("script", [EXTRACT, BUILD, EVALUATE], ids=lambda script: script.stem)
def test_a_missing_flag_is_named(tmp_path, script):
    result = run(tmp_path, script)
    assert result.returncode == 2
    assert "the following arguments are required: --" in result.stderr
    assert "Traceback" not in result.stderr


# Help

HELP_AND_MODULES = """
import runpy
import sys

script = sys.argv[1]
sys.argv = [script, "--help"]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as leaving:
    code = leaving.code
print("code:", code)
print("modules:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_explains_every_flag_and_loads_nothing_heavy(tmp_path, script):
    result = subprocess.run(
        [sys.executable, "-c", HELP_AND_MODULES, str(script)],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    *help_text, code, modules = result.stdout.splitlines()
    assert code == "code: 0"
    assert not HEAVY & set(modules.split()[1:])
    assert help_text[0].startswith("usage: ")
    assert any("Example" in line for line in help_text)
    assert names_in(tmp_path) == []


# Failed samples


class Mute:
    """An extractor that never says anything readable, and is unplugged before it is asked a certain question."""

    description = "mute"

    def __init__(self, questions):
        self.questions = questions

    def generate(self, requests, sampling):
        for request in requests:
            if self.questions == 0:
                raise KeyboardInterrupt
            self.questions -= 1
            yield Reply(request.key, ["no list"])

    def summary(self):
        return []

    def close(self):
        pass


class OfflineExtractor(OfflineEngine):
    """The good extractor, under the name of the one it takes over from."""

    def __init__(self):
        super().__init__(extract_answer)
        self.description = Mute.description


def extract_with(engine, folder, *, max_failures, resume=False):
    return extract_info(
        input_file=folder / "in.jsonl",
        output_file=folder / "out.jsonl",
        make_engine=lambda: engine,
        prices=None,
        max_retries=0,
        max_failures=max_failures,
        strict=False,
        resume=resume,
        overwrite=False,
    )


# Two of the session's three samples are asked about; the third is its end.
@pytest.mark.parametrize(("max_failures", "code"), [(0.0, 1), (0.6, 1), (0.7, 0)])
def test_too_many_failed_samples_are_told_by_the_exit_code(tmp_path, max_failures, code):
    write(tmp_path / "in.jsonl", SESSION)
    assert extract_with(Mute(questions=2), tmp_path, max_failures=max_failures) == code
    assert [sample["info_set"] for sample in read(tmp_path / "out.jsonl")] == [None, None, []]


def test_samples_that_failed_before_an_interruption_count_as_well(tmp_path):
    # Given a run that was interrupted after both samples had failed in it ...
    write(tmp_path / "in.jsonl", SESSION, {**SESSION, "session_id": 2, "messages": SESSION["messages"][4:]})
    with pytest.raises(KeyboardInterrupt):
        extract_with(Mute(questions=2), tmp_path, max_failures=0.01)
    # ... and a second part in which a good extractor answers what is left
    code = extract_with(OfflineExtractor(), tmp_path, max_failures=0.01, resume=True)
    # Then a failed sample is either asked about again or told by the exit code
    failed = sum(sample["info_set"] is None for sample in read(tmp_path / "out.jsonl"))
    assert code == (1 if failed else 0)
