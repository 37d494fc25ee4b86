"""The three scripts as a user runs them: outputs, exit codes, help."""

import subprocess
import sys

import pytest
from medical import MEDICAL, extract_answer
from run_scripts import (
    BUILD,
    MODEL_FREE,
    PACKAGE,
    SAMPLE,
    SCRIPTS,
    SESSION,
    TASK,
    evaluate,
    extract,
    names_in,
    read,
    run,
    run_as_a_user_does,
    write,
)

from tuner.learn_to_ask.data_prepare.extract_info import extract_info
from tuner.learn_to_ask.engines.base import Reply
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.errors import UserError

HEAVY = {"torch", "vllm", "transformers", "ray", "trinity"}


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
    # Half of the lines are more than the 1% that passes by itself
    assert step(tmp_path).returncode == 1
    result = step(tmp_path, "--overwrite", "--max_bad_lines=0.5")
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


class Mute:
    """An extractor of which only the first answers are readable, and which is unplugged before a certain question."""

    description = "mute"

    def __init__(self, questions, readable=0):
        self.questions = questions
        self.readable = readable

    def generate(self, requests, sampling):
        for request in requests:
            if self.questions == 0:
                raise KeyboardInterrupt
            self.questions -= 1
            self.readable -= 1
            yield Reply(request.key, ["[]" if self.readable >= 0 else "no list"])

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
        settings=JobSettings(
            make_engine=lambda: engine, max_retries=0, max_failures=max_failures, resume=resume, overwrite=False
        ),
        domain=MEDICAL,
        strict=False,
    )


# Two of a session's three samples are asked about; the third is its end.
@pytest.mark.parametrize(("max_failures", "code"), [(0.0, 1), (0.4, 1), (0.5, 0)])
def test_too_many_failed_samples_are_told_by_the_exit_code(tmp_path, max_failures, code):
    write(tmp_path / "in.jsonl", SESSION, {**SESSION, "session_id": 2})
    assert extract_with(Mute(questions=4, readable=1), tmp_path, max_failures=max_failures) == code
    assert [sample["info_set"] for sample in read(tmp_path / "out.jsonl")] == [[], None, [], None, None, []]


def test_a_run_in_which_everything_failed_leaves_nothing_in_the_way_of_the_next(tmp_path):
    write(tmp_path / "in.jsonl", SESSION)
    with pytest.raises(UserError, match=r"not written, no request was answered: unreadable answer \(2, for example '"):
        extract_with(Mute(questions=2), tmp_path, max_failures=1.0)
    assert names_in(tmp_path) == ["in.jsonl"]
    assert extract_with(OfflineExtractor(), tmp_path, max_failures=0.0, resume=True) == 0


def test_answers_that_cannot_be_read_are_shown_in_the_summary_one_for_each_reason(tmp_path, capsys):
    write(tmp_path / "in.jsonl", SESSION, {**SESSION, "session_id": 2})
    extract_with(Mute(questions=4, readable=1), tmp_path, max_failures=1.0)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "for example" in line]
    assert line.split(maxsplit=2) == ["for", "example", "'no list'"]


def test_futures_in_which_nothing_was_found_are_counted_and_told_when_they_are_many(tmp_path, capsys):
    write(tmp_path / "in.jsonl", SESSION)
    assert extract_with(Mute(questions=2, readable=2), tmp_path, max_failures=0.0) == 0
    printed = capsys.readouterr()
    assert "continue, nothing found  2 of 2" in printed.out
    assert "warning: in 2 of 2 futures" in printed.err


def test_what_is_dropped_from_logs_is_counted(tmp_path, capsys):
    system, blank = {"role": "system", "content": "You are a doctor."}, {"role": "user", "content": "  "}
    write(tmp_path / "in.jsonl", {**SESSION, "session_id": 1.0, "messages": [system, *SESSION["messages"], blank]})
    result = extract(tmp_path)
    assert result.returncode == 0
    assert "dropped: empty message   1" in result.stdout
    assert "dropped: system message  1" in result.stdout
    samples = read(tmp_path / "out.jsonl")
    assert {sample["session_id"] for sample in samples} == {"1"}
    assert samples[-1]["messages"] + samples[-1]["remaining_chat"] == SESSION["messages"]


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
