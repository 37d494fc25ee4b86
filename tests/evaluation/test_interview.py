"""Whole interviews: a policy and the users of a log, many at a time, none held twice, all counted."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fault_server import GOOD, HANG, FaultServer
from interviews import ITEMS, LINES, QUESTIONS, STOP, diarrhea, sample_of
from sessions import session
from step_three import job, records

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.engines.base import Reply
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.hold_interviews import hold_interviews
from tuner.learn_to_ask.evaluation.interview_summary import print_metrics
from tuner.learn_to_ask.evaluation.roll_out import TRAINED_SAMPLING

ROOT = Path(__file__).parents[2]
JOB = ("max_retries", "max_failures", "resume", "overwrite")


def scripted(*said):
    """A policy that says this, one after the other, and then the last again."""

    def policy(messages):
        asked = sum(message["role"] == "assistant" for message in messages)
        return said[min(asked, len(said) - 1)]

    return policy


ASKS_ALL = scripted(*QUESTIONS, STOP)


def write(folder, *samples):
    file = folder / "samples.jsonl"
    file.write_text("".join(sample.model_dump_json() + "\n" for sample in samples), encoding="utf-8")
    return file


def settings_of(make_engine):
    return JobSettings(make_engine=make_engine, max_retries=0, max_failures=0.0, resume=False, overwrite=False)


def hold(folder, policy=ASKS_ALL, **overrides):
    settings = job(policy, **{name: overrides.pop(name) for name in JOB if name in overrides})
    return hold_interviews(
        test_file=folder / "samples.jsonl",
        output_file=folder / "interviews.jsonl",
        settings=overrides.pop("settings", settings),
        **{
            "sampling": TRAINED_SAMPLING,
            "domain": load_domain("medical_en"),
            "max_turns": 12,
            "strict": False,
            **overrides,
        },
    )


def test_an_interview_is_recorded_turn_by_turn_beside_the_logged_one(tmp_path):
    write(tmp_path, diarrhea("7"))

    assert hold(tmp_path) == EXIT_DONE

    (one,) = records(tmp_path / "interviews.jsonl")
    assert one["session_id"] == "7"
    assert one["messages"] == [{"role": "user", "content": "i have diarrhea since last night"}]
    assert [fact["item"] for fact in one["facts"]] == ITEMS
    assert one["held"] == {
        "turns": [
            {"question": QUESTIONS[0], "answer": "it is like water", "facts": [0], "opening": False},
            {"question": QUESTIONS[1], "answer": "about five", "facts": [1], "opening": False},
            {"question": QUESTIONS[2], "answer": "a very spicy hotpot", "facts": [2], "opening": False},
        ],
        "end": STOP,
    }
    assert [turn["facts"] for turn in one["logged"]["turns"]] == [[0, 1], [2]]
    assert (one["policy"], one["user"], one["max_turns"]) == ("offline:policy", "rules", 12)


def test_the_policy_reads_its_prompt_and_the_dialogue_without_turns_in_which_it_said_nothing(tmp_path):
    write(tmp_path, diarrhea())
    read = []

    def policy(messages):
        read.append([(message["role"], message["content"]) for message in messages[1:]])
        return ["", QUESTIONS[0], "<think>enough</think>" + STOP][len(read) - 1]

    hold(tmp_path, policy)

    opening = ("user", "i have diarrhea since last night")
    told = [("assistant", QUESTIONS[0]), ("user", "it is like water")]
    assert read == [[opening], [opening], [opening, *told]]
    (one,) = records(tmp_path / "interviews.jsonl")
    assert [turn["answer"] for turn in one["held"]["turns"]] == ["i am not sure", "it is like water"]
    assert one["held"]["end"] == STOP


def test_the_agent_that_is_trained_holds_the_same_interview(tmp_path):
    write(tmp_path, diarrhea())
    hold(tmp_path)
    (direct,) = records(tmp_path / "interviews.jsonl")

    hold(tmp_path, rollout_mode="react", overwrite=True)

    (react,) = records(tmp_path / "interviews.jsonl")
    assert react["held"] == direct["held"]
    assert react["policy"] == "offline:policy (ReAct agent)"


def test_every_round_asks_for_all_open_interviews_at_once(tmp_path):
    # Given three sessions, of which one is stopped at once
    write(tmp_path, diarrhea("1"), sample_of("p: i am dizzy", items=["symptom: fever"], session_id="2"), diarrhea("3"))
    rounds = []

    class Recording(OfflineEngine):
        def generate(self, requests, sampling):
            rounds.append([])
            for reply in super().generate(requests, sampling):
                rounds[-1].append(reply.key)
                yield reply

    def policy(messages):
        return STOP if "dizzy" in messages[-1]["content"] else ASKS_ALL(messages)

    hold(tmp_path, settings=settings_of(lambda: Recording(policy)))

    assert rounds == [[0, 1, 2], [0, 2], [0, 2], [0, 2]]
    assert [one["session_id"] for one in records(tmp_path / "interviews.jsonl")] == ["1", "2", "3"]


def test_an_interview_without_a_stop_is_broken_off(tmp_path):
    write(tmp_path, diarrhea())

    hold(tmp_path, lambda messages: "Do you smoke?", max_turns=4)

    (one,) = records(tmp_path / "interviews.jsonl")
    assert (len(one["held"]["turns"]), one["held"]["end"]) == (4, None)


@pytest.mark.parametrize(
    ("name", "lines", "items", "script", "stop"),
    [
        (
            "it_support",
            ["p: the printer is dead", "d: what does the display say?", "p: it wants more black", "d: <open_ticket>"],
            ["error message: toner low"],
            ["What do you read on the display?", "<ticket />"],
            "<ticket />",
        ),
        (
            "medical_zh",
            ["p: 咳嗽好几天了", "d: 咳出的痰是什么颜色？", "p: 咳出来的又黄又稠", "d: <med_search>"],
            ["症状性质: 黄色黏痰"],
            ["痰是什么颜色的？", "<stop />"],
            "<stop />",
        ),
    ],
)
def test_other_fields_have_their_own_stop_token_and_words(tmp_path, name, lines, items, script, stop):
    write(tmp_path, sample_of(*lines, items=items))

    hold(tmp_path, scripted(*script), domain=load_domain(name))

    (one,) = records(tmp_path / "interviews.jsonl")
    assert [(turn["facts"], turn["answer"]) for turn in one["held"]["turns"]] == [([0], lines[2][3:])]
    assert (one["held"]["end"], one["logged"]["end"]) == (stop, stop)
    assert one["domain"]["name"] == name


def test_sessions_that_cannot_be_asked_are_left_out_and_counted(tmp_path, capsys):
    later = list(segment(session(*LINES, session_id="4")))[1].model_copy(update={"info_set": ITEMS})
    nothing = diarrhea("2").model_copy(update={"info_set": []})
    failed = diarrhea("3").model_copy(update={"info_set": None})
    write(tmp_path, nothing, failed, later, diarrhea("1"))

    assert hold(tmp_path) == EXIT_DONE

    assert [one["session_id"] for one in records(tmp_path / "interviews.jsonl")] == ["1"]
    said = capsys.readouterr().out
    for why in ("without facts", "its extraction failed", "its first sample is missing"):
        assert f"left out: {why}" in said


def test_a_file_without_any_session_to_ask_is_an_error_with_the_reason(tmp_path):
    write(tmp_path, diarrhea().model_copy(update={"info_set": []}))

    with pytest.raises(
        UserError, match=r"--test_file_path .*: holds no session that can be asked: without facts \(1\)"
    ):
        hold(tmp_path)


def test_a_log_that_holds_the_stop_token_is_refused(tmp_path):
    write(tmp_path, sample_of("p: i cough", f"d: {STOP}", items=["symptom: cough"]))

    with pytest.raises(UserError, match="stop token"):
        hold(tmp_path)


class _Failing(OfflineEngine):
    """Fails for conversations that open with a certain word."""

    def generate(self, requests, sampling):
        for request in requests:
            if "dizzy" in request.messages[1]["content"]:
                yield Reply(request.key, [], error="server is down", final=True)
            else:
                yield Reply(request.key, [self._answer(request.messages)])


def test_an_interview_in_which_the_policy_fails_is_left_out(tmp_path, capsys):
    write(tmp_path, sample_of("p: i am dizzy", items=["symptom: fever"], session_id="2"), diarrhea("1"))

    assert hold(tmp_path, settings=settings_of(lambda: _Failing(ASKS_ALL))) == EXIT_FAILURES

    assert [one["session_id"] for one in records(tmp_path / "interviews.jsonl")] == ["1"]
    assert "failed: server is down" in capsys.readouterr().out


def test_when_every_interview_fails_nothing_is_written(tmp_path):
    write(tmp_path, sample_of("p: i am dizzy", items=["symptom: fever"]))

    with pytest.raises(UserError, match="every interview failed: server is down"):
        hold(tmp_path, settings=settings_of(lambda: _Failing(ASKS_ALL)))
    assert [file.name for file in tmp_path.iterdir()] == ["samples.jsonl"]


def test_an_unfinished_run_is_not_continued_with_another_number_of_turns(tmp_path):
    write(tmp_path, sample_of("p: i am dizzy", items=["symptom: fever"]), diarrhea("2"))

    def policy(messages):
        if "dizzy" in messages[1]["content"]:
            return STOP
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hold(tmp_path, policy)
    with pytest.raises(UserError, match="max_turns was 12, is now 5"):
        hold(tmp_path, policy, resume=True, max_turns=5)


def command(folder, server, *flags):
    return [
        *(sys.executable, "-m", "tuner.learn_to_ask.evaluation.interview", "--test_file_path=samples.jsonl"),
        *("--output_file=interviews.jsonl", f"--eval_base_url={server.base_url}", "--eval_model=policy"),
        *("--eval_request_retries=0", "--max_retries=0", "--eval_concurrency=1", *flags),
    ]


def run(folder, server, *flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(folder, server, *flags),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def opening_of(call):
    return call.body["messages"][1]["content"]


def test_after_kill_9_resume_holds_no_finished_interview_twice_and_the_table_is_printed(tmp_path):
    # Given four interviews, of which two are stopped at once, and a server that hangs in the second round
    short = [sample_of(f"p: i am dizzy {n}", items=["symptom: fever"], session_id=str(n)) for n in (1, 2)]
    long = [sample_of(f"p: i cough {n}", *LINES[1:], items=ITEMS, session_id=str(n)) for n in (3, 4)]
    write(tmp_path, *short, *long)
    hangs = True

    def answer(messages):
        return STOP if "dizzy" in messages[1]["content"] else ASKS_ALL(messages)

    def plan(call):
        return HANG if hangs and len(call.body["messages"]) > 2 else GOOD

    with FaultServer(plan, answer=answer) as server:
        process = subprocess.Popen(
            command(tmp_path, server),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        server.wait_until(lambda server: server.received == 5, timeout=60.0)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert {file.name for file in tmp_path.iterdir()} == {"samples.jsonl", "interviews.jsonl.journal"}
        # When it is resumed
        hangs = False
        done = run(tmp_path, server, "--resume")
        # Then those that were finished were asked once, the others from their beginning
        assert done.returncode == EXIT_DONE, done.stderr
        asked = Counter(opening_of(call) for call in server.calls if call.answered)
        assert asked == {"i am dizzy 1": 1, "i am dizzy 2": 1, "i cough 3": 5, "i cough 4": 5}
        again = run(tmp_path, server, "--resume")
    assert [one["session_id"] for one in records(tmp_path / "interviews.jsonl")] == ["1", "2", "3", "4"]
    # And the table has the policy beside the logged questions: two of four interviews found all, two nothing
    assert "4 interviews" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.strip().startswith("coverage at stop")]
    assert row.split()[3] == "0.500"
    assert "already complete" in again.stdout
    assert row in again.stdout


def test_a_file_that_holds_no_interviews_is_named_with_its_line(tmp_path):
    file = tmp_path / "interviews.jsonl"
    file.write_text(json.dumps({"session_id": "1"}) + "\n")

    with pytest.raises(UserError, match=r"interviews.jsonl:1: messages"):
        print_metrics(file)
