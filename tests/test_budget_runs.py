"""Whole runs on a budget, on real servers that report their usage: they stop, and --resume pays for nothing twice."""

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest
from fault_server import GOOD, HANG, Fault, FaultServer
from interviews import QUESTIONS, STOP, diarrhea
from medical import extract_answer
from run_scripts import EVALUATE, EXTRACT, PACKAGE, SESSION, error_of, run, write
from step_three import numbered_task

GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")


def sessions(count):
    """Each has three samples, two of which go on: two requests."""
    return [
        {
            **SESSION,
            "session_id": number,
            "messages": [
                {**message, "content": f"{message['content']} case {number}"} if message["role"] == "user" else message
                for message in SESSION["messages"]
            ],
        }
        for number in range(count)
    ]


def extract(folder, server, *flags):
    files = ("--input_file=in.jsonl", "--output_file=out.jsonl", "--max_tokens=64", "--concurrency=4")
    return run(folder, EXTRACT, *files, "--engine=openai", f"--base_url={server.base_url}", "--model=m", *flags)


def tokens(server):
    """What the server counted: a word is a token, in prompts and answers."""
    return sum(
        sum(len(message["content"].split()) for message in call.body["messages"])
        + call.body.get("n", 1) * len(server._answer(call.body["messages"]).split())
        for call in server.calls
        if call.answered
    )


def asked(server):
    return Counter(json.dumps(call.body["messages"]) for call in server.calls if call.answered)


def test_script_1_stops_at_its_tokens_and_goes_on_until_all_is_there_paying_for_nothing_twice(tmp_path):
    write(tmp_path / "in.jsonl", *sessions(30))
    with FaultServer(answer=extract_answer) as server:
        whole = extract(tmp_path, server)
        assert whole.returncode == 0, whole.stderr
        everything, asked_for = tokens(server), asked(server)
        expected = (tmp_path / "out.jsonl").read_bytes()
        (tmp_path / "out.jsonl").unlink()

        server.calls.clear()
        runs, flags = [], (f"--max_tokens_total={everything // 3}",)
        while not runs or runs[-1].returncode == 1:
            before = tokens(server)
            runs.append(extract(tmp_path, server, *flags, *(["--resume"] if runs else [])))
            assert tokens(server) - before <= everything // 3
            assert len(runs) < 9

    assert runs[-1].returncode == 0
    assert len(runs) > 2
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert asked(server) == asked_for
    first = runs[0]
    assert f"stopped: --max_tokens_total {everything // 3}: reached" in first.stderr
    assert "--resume goes on with a budget of its own" in first.stderr
    answered = int(first.stdout.split("answered")[1].split()[0])
    # of 30 sessions with two requests each
    assert f"{60 - answered} requests" in first.stdout
    assert "by this run's average" in first.stdout


def test_what_the_rest_would_cost_is_told_by_the_average(tmp_path):
    write(tmp_path / "in.jsonl", *sessions(30))
    with FaultServer(answer=extract_answer) as server:
        done = extract(tmp_path, server, "--max_usd=2", "--price_in=1000", "--price_out=2000", "--concurrency=1")

    assert done.returncode == 1, done.stderr
    counted_in = sum(len(message["content"].split()) for call in server.calls for message in call.body["messages"])
    counted_out = tokens(server) - counted_in
    usd = counted_in / 1000 + counted_out * 2 / 1000
    calls = len(server.calls)
    assert usd <= 2
    assert f"tokens in / out  {counted_in:,} / {counted_out:,}" in done.stdout
    assert f"cost             {usd:.4f}" in done.stdout
    assert f"{tokens(server) / calls * (60 - calls):,.0f} tokens, {usd / calls * (60 - calls):.4f} USD" in done.stdout


def test_nothing_is_sent_when_the_budget_is_unusable(tmp_path):
    write(tmp_path / "in.jsonl", *sessions(1))
    with FaultServer(answer=extract_answer) as server:
        for flags, error in [
            (("--max_usd=0",), "--max_usd 0: a number above 0 is needed"),
            (("--max_usd=-3",), "--max_usd -3: a number above 0 is needed"),
            (("--max_usd=5",), "--max_usd: the tables do not say what m costs there; pass --price_in and --price_out"),
            (("--max_usd=5", "--price_in=1"), "pass --price_out, USD for a million tokens"),
            (("--max_usd=0.0001", "--price_in=1", "--price_out=9"), "less than the first request may take"),
            (("--max_tokens_total=20",), "--max_tokens_total 20: less than the first request may take"),
            (("--max_tokens_total=9999", '--extra_json={"max_tokens": null}'), "the requests have no max_tokens"),
        ]:
            assert error in error_of(extract(tmp_path, server, *flags))
        assert server.received == 0


def test_curate_takes_a_budget_for_its_judge_only(tmp_path):
    write(tmp_path / "in.jsonl", *sessions(1))

    done = run(tmp_path, PACKAGE / "data_prepare" / "curate.py", "in.jsonl", "out.jsonl", "--max_usd=1")

    assert error_of(done) == "--max_usd: nobody judges; pass --judge as well"


def test_a_server_that_reports_no_usage_is_counted_by_estimate_and_the_summary_says_so(tmp_path):
    write(tmp_path / "in.jsonl", *sessions(20))

    def without_usage(call):
        message = {"role": "assistant", "content": extract_answer(call.body["messages"])}
        return Fault(body=json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())

    with FaultServer(without_usage) as server:
        done = extract(tmp_path, server, "--max_tokens_total=10000")

    assert done.returncode == 1, done.stderr
    assert f"estimated for {server.received} replies without a count" in done.stdout
    # a token for every 3 bytes of the prompts, and the answers on top
    sizes = [len(message["content"].encode()) for call in server.calls for message in call.body["messages"]]
    assert sum(sizes) / 3 <= 10000
    assert 0 < server.received < 40


def test_a_killed_run_on_a_budget_goes_on_and_nothing_it_had_is_sent_again(tmp_path):
    write(tmp_path / "in.jsonl", *sessions(10))
    with FaultServer(lambda call: HANG if call.index >= 9 else GOOD, answer=extract_answer) as server:
        command = [sys.executable, str(EXTRACT), "--input_file=in.jsonl", "--output_file=out.jsonl", "--concurrency=1"]
        command += [f"--base_url={server.base_url}", "--model=m", "--max_tokens=64", "--max_tokens_total=1000000"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server.wait_until(lambda server: server.received == 10, timeout=60)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        server._plan = lambda call: GOOD

        done = extract(tmp_path, server, "--max_tokens_total=1000000", "--resume")

    assert done.returncode == 0, done.stderr
    assert asked(server).total() == len(asked(server)) == 20


def evaluate(folder, policy, grader, *flags):
    return run(
        folder,
        EVALUATE,
        *("--test_file_path=test.jsonl", "--rollout_file_path=rollouts.jsonl", "--eval_file_path=eval.jsonl"),
        *("--rollout_repeat=2", "--max_tokens=32", "--grader_max_tokens=64"),
        *(f"--eval_base_url={policy.base_url}", "--eval_model=policy", "--eval_concurrency=2"),
        *(f"--grader_base_url={grader.base_url}", "--grader_model=grader", "--grader_concurrency=2"),
        *flags,
    )


@pytest.mark.parametrize("mode", ["direct", "react"])
def test_policy_and_grader_of_script_3_share_one_budget_and_resume_pays_for_nothing_twice(tmp_path, mode):
    write(tmp_path / "test.jsonl", *(numbered_task(number) for number in range(16)))
    flags = (f"--rollout_mode={mode}", "--eval_price_in=10", "--eval_price_out=20")
    flags += ("--grader_price_in=30", "--grader_price_out=40")

    def cost(policy, grader):
        total = 0.0
        for server, tokens_in, tokens_out in ((policy, 10, 20), (grader, 30, 40)):
            for call in server.calls:
                words = sum(len(message["content"].split()) for message in call.body["messages"])
                total += words * tokens_in / 1e6
                total += call.body.get("n", 1) * len(server._answer(call.body["messages"]).split()) * tokens_out / 1e6
        return total

    def say(messages):
        return f"Since when, {messages[-1]['content']}?"

    with FaultServer(answer=say) as policy, FaultServer(answer=lambda messages: GRADE) as grader:
        whole = evaluate(tmp_path, policy, grader, *flags)
        assert whole.returncode == 0, whole.stderr
        everything, calls = cost(policy, grader), (policy.received, grader.received)
        expected = [(tmp_path / name).read_bytes() for name in ("rollouts.jsonl", "eval.jsonl")]
        for name in ("rollouts.jsonl", "eval.jsonl"):
            (tmp_path / name).unlink()
        policy.calls.clear()
        grader.calls.clear()

        runs = []
        while not runs or runs[-1].returncode == 1:
            before = cost(policy, grader)
            limit = f"--max_usd={everything / 2}"
            runs.append(evaluate(tmp_path, policy, grader, *flags, limit, *(["--resume"] if runs else [])))
            assert cost(policy, grader) - before <= everything / 2
            assert len(runs) < 9

    assert runs[-1].returncode == 0, runs[-1].stderr
    assert len(runs) > 1
    assert "stopped: --max_usd" in runs[0].stderr
    assert "of 16 samples" in runs[0].stdout
    assert [(tmp_path / name).read_bytes() for name in ("rollouts.jsonl", "eval.jsonl")] == expected
    assert len(policy.calls) == calls[0]
    assert len(grader.calls) <= calls[1] + 4  # a sample is kept when both of its rollouts are graded


def scripted(messages):
    """A policy that asks three questions and stops."""
    said = sum(message["role"] == "assistant" for message in messages)
    return [*QUESTIONS, STOP][min(said, 3)]


@pytest.mark.parametrize("user", ["rules", "llm"])
def test_interviews_are_kept_as_far_as_they_came_and_go_on_from_there(tmp_path, user):
    samples = [diarrhea(str(number)) for number in range(6)]
    (tmp_path / "samples.jsonl").write_text("".join(sample.model_dump_json() + "\n" for sample in samples))

    def hold(policy, chooser, *flags):
        command = ["-m", "tuner.learn_to_ask.evaluation.interview", f"--test_file_path={tmp_path / 'samples.jsonl'}"]
        command += [f"--output_file={tmp_path / 'interviews.jsonl'}", "--max_tokens=16", f"--user={user}"]
        command += [f"--eval_base_url={policy.base_url}", "--eval_model=policy"]
        command += [f"--user_base_url={chooser.base_url}", "--user_model=chooser"]
        return subprocess.run(
            [sys.executable, *command, *flags], capture_output=True, text=True, timeout=120, check=False
        )

    with FaultServer(answer=scripted) as policy, FaultServer(answer=lambda messages: "[1]") as chooser:
        whole = hold(policy, chooser)
        assert whole.returncode == 0, whole.stderr
        everything = tokens(policy) + tokens(chooser)
        calls = (policy.received, chooser.received)
        expected = (tmp_path / "interviews.jsonl").read_bytes()
        (tmp_path / "interviews.jsonl").unlink()
        policy.calls.clear()
        chooser.calls.clear()

        runs = []
        limit = f"--max_tokens_total={everything // 2}"
        while not runs or runs[-1].returncode == 1:
            before = tokens(policy) + tokens(chooser)
            runs.append(hold(policy, chooser, limit, *(["--resume"] if runs else [])))
            assert tokens(policy) + tokens(chooser) - before <= everything // 2
            assert len(runs) < 9

    assert runs[-1].returncode == 0, runs[-1].stderr
    assert len(runs) > 1
    assert "of 6 interviews, at most" in runs[0].stdout
    assert (tmp_path / "interviews.jsonl").read_bytes() == expected
    assert (len(policy.calls), len(chooser.calls)) == calls
