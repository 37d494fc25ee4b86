"""Grading while rollouts go on, with a policy and a grader on two real endpoints that answer, hang and die."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fault_server import GOOD, HANG, Fault, FaultServer, http_error
from step_three import numbered_task

ROOT = Path(__file__).parents[2]
EVALUATE = ROOT / "tuner" / "learn_to_ask" / "data_prepare" / "3_rollout_then_evaluate.py"
GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"


def rollout(messages):
    return f"Since when, {messages[-1]['content']}?"


def policy(plan=lambda call: GOOD):
    return FaultServer(plan, answer=rollout)


def grader(plan=lambda call: GOOD):
    return FaultServer(plan, answer=lambda messages: GRADE)


def command(folder, policy_server, grader_server, *flags):
    return [
        *(sys.executable, str(EVALUATE), "--test_file_path=test.jsonl", "--rollout_file_path=rollouts.jsonl"),
        *("--eval_file_path=eval.jsonl", "--rollout_repeat=1", "--max_retries=0"),
        *(f"--eval_base_url={policy_server.base_url}", "--eval_model=policy", "--eval_request_retries=0"),
        *(f"--grader_base_url={grader_server.base_url}", "--grader_model=grader", "--grader_request_retries=0"),
        *("--eval_concurrency=1", "--grader_concurrency=1", *flags),
    ]


def run(folder, *servers_and_flags):
    return subprocess.run(
        command(folder, *servers_and_flags), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


# A shell that starts things in the background has them ignore SIGINT.
INTERRUPTIBLE = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def start(folder, *servers_and_flags):
    python, *arguments = command(folder, *servers_and_flags)
    return subprocess.Popen(
        [python, "-c", INTERRUPTIBLE, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write(folder, count):
    (folder / "test.jsonl").write_text("".join(json.dumps(numbered_task(number)) + "\n" for number in range(count)))


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def answered(server):
    """How often each conversation was answered in full."""
    return Counter(call.text for call in server.calls if call.answered)


def test_a_rollout_is_graded_before_the_last_one_is_answered(tmp_path):
    # Given a policy that does not answer its last request before the grader was asked something
    write(tmp_path, 3)

    def waits_for_the_grader(call):
        if call.text == "patient 2":
            grading.wait_until(lambda server: server.received > 0)
        return GOOD

    with grader() as grading, policy(waits_for_the_grader) as rolling:
        done = run(tmp_path, rolling, grading)
    # Then the run comes to its end, and says so
    assert done.returncode == 0, done.stderr
    assert "while the rollouts went on" in done.stdout
    assert [record["grades"][0]["content_score"] for record in read(tmp_path / "eval.jsonl")] == [0.5, 0.5, 0.5]


def test_files_are_in_the_order_of_the_test_set_whatever_finishes_first(tmp_path):
    # Given a policy that answers the first request last
    write(tmp_path, 6)

    def first_comes_last(call):
        return Fault(delay=1.0) if call.text == "patient 0" else GOOD

    with grader() as grading, policy(first_comes_last) as rolling:
        done = run(tmp_path, rolling, grading, "--eval_concurrency=8")
    assert done.returncode == 0, done.stderr
    for name in ("rollouts.jsonl", "eval.jsonl"):
        assert [record["cid"] for record in read(tmp_path / name)] == [f"{number}_0" for number in range(6)]


def test_after_kill_9_in_the_middle_of_both_resume_pays_for_nothing_twice(tmp_path):
    # Given a run that is killed when both endpoints owe it an answer
    write(tmp_path, 8)
    hangs = True
    plan_policy = lambda call: HANG if hangs and call.text == "patient 5" else GOOD  # noqa: E731
    plan_grader = lambda call: HANG if hangs and call.text.endswith("patient 1?") else GOOD  # noqa: E731
    with grader(plan_grader) as grading, policy(plan_policy) as rolling:
        process = start(tmp_path, rolling, grading)
        rolling.wait_until(lambda server: server.received == 6)
        grading.wait_until(lambda server: server.received == 2)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert {file.name for file in tmp_path.iterdir()} == {
            *("test.jsonl", "rollouts.jsonl.journal", "eval.jsonl.journal")
        }
        # When it is resumed
        hangs = False
        done = run(tmp_path, rolling, grading, "--resume")
        # Then each conversation was answered once, and only those in flight were asked twice
        assert done.returncode == 0, done.stderr
        assert answered(rolling) == {f"patient {number}": 1 for number in range(8)}
        assert set(answered(grading).values()) == {1}
        assert len(answered(grading)) == 6
        assert (rolling.received, grading.received) == (9, 7)
    assert [record["cid"] for record in read(tmp_path / "eval.jsonl")] == [f"{number}_0" for number in range(8)]
    assert {file.name for file in tmp_path.iterdir()} == {"test.jsonl", "rollouts.jsonl", "eval.jsonl"}


def test_after_kill_9_when_only_grading_is_left_resume_needs_no_policy(tmp_path):
    # Given a run that is killed when all is rolled out and two are graded
    write(tmp_path, 4)
    hangs = True
    plan = lambda call: HANG if hangs and call.text.endswith("patient 2?") else GOOD  # noqa: E731
    with grader(plan) as grading:
        with policy() as rolling:
            process = start(tmp_path, rolling, grading)
            grading.wait_until(lambda server: server.received == 3)
            while not (tmp_path / "rollouts.jsonl").exists():
                os.sched_yield()
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        # When it is resumed, and the policy is not there any more
        hangs = False
        done = run(tmp_path, rolling, grading, "--resume")
        assert done.returncode == 0, done.stderr
        assert "already complete" in done.stdout
        assert set(answered(grading).values()) == {1}
    assert len(read(tmp_path / "eval.jsonl")) == 4


@pytest.mark.parametrize("side", ["policy", "grader"])
def test_when_one_side_cannot_go_on_the_other_stops_and_the_error_is_told_once(tmp_path, side):
    write(tmp_path, 30)
    refuses = True
    broken = lambda call: http_error(401, "bad key") if refuses and call.index >= 2 else GOOD  # noqa: E731
    with (
        grader(broken if side == "grader" else lambda call: GOOD) as grading,
        policy(broken if side == "policy" else lambda call: GOOD) as rolling,
    ):
        done = run(tmp_path, rolling, grading)
        at_fault = {"policy": rolling, "grader": grading}[side]
        # Then there is one error, of the side at fault
        assert done.returncode == 2
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert f"127.0.0.1:{at_fault.port} answered HTTP 401: bad key" in line
        assert "Traceback" not in done.stderr
        # And what was answered is kept for the time when it works again
        refuses = False
        assert run(tmp_path, rolling, grading, "--resume").returncode == 0
        assert set(answered(rolling).values()) == set(answered(grading).values()) == {1}
    assert len(read(tmp_path / "eval.jsonl")) == 30


@pytest.mark.slow
@pytest.mark.parametrize("rollouts_go_on", [True, False])
def test_ctrl_c_ends_both_though_no_endpoint_answers(tmp_path, rollouts_go_on):
    write(tmp_path, 4)
    plan = lambda call: HANG if rollouts_go_on and call.index else GOOD  # noqa: E731
    with grader(lambda call: HANG) as grading, policy(plan) as rolling:
        process = start(tmp_path, rolling, grading)
        grading.wait_until(lambda server: server.received == 1)
        rolling.wait_until(lambda server: server.received == (2 if rollouts_go_on else 4))
        while not rollouts_go_on and not (tmp_path / "rollouts.jsonl").exists():
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in said


def test_a_rollout_that_failed_is_in_neither_file_and_told_by_the_exit_code(tmp_path):
    write(tmp_path, 4)
    fails = lambda call: http_error(500) if call.text == "patient 1" else GOOD  # noqa: E731
    with grader() as grading, policy(fails) as rolling:
        done = run(tmp_path, rolling, grading)
    assert done.returncode == 1, done.stderr
    for name in ("rollouts.jsonl", "eval.jsonl"):
        assert [record["cid"] for record in read(tmp_path / name)] == ["0_0", "2_0", "3_0"]


def test_rollouts_of_another_policy_are_not_given_grades_that_were_made_of_the_first(tmp_path):
    # Given an evaluation that was killed, whose rollouts were then deleted and replaced by others
    write(tmp_path, 4)
    with grader(lambda call: HANG if call.index == 2 else GOOD) as grading, policy() as rolling:
        process = start(tmp_path, rolling, grading)
        grading.wait_until(lambda server: server.received == 3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for name in ("rollouts.jsonl", "rollouts.jsonl.journal"):
            (tmp_path / name).unlink(missing_ok=True)
        with FaultServer(answer=lambda messages: "Do you cough?") as other:
            done = run(tmp_path, other, grading, "--resume")
    assert done.returncode == 2
    assert "eval.jsonl.journal: cannot resume, it holds grades of other rollouts of cid '0_0'" in done.stderr
