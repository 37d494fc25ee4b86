"""The committed examples are what the scripts write today."""

import shutil
from pathlib import Path

import pytest
from medical import MEDICAL
from run_scripts import build, evaluate, extract

from tuner.learn_to_ask.core.grading import parse_score
from tuner.learn_to_ask.core.records import GradedTask, Interview, Judgement, Sample, Session, Task, TaskWithRollouts
from tuner.learn_to_ask.engines.offline import judge_answer
from tuner.learn_to_ask.evaluation.patient import answer, is_first_of_session, make_patient
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import judging_messages

EXAMPLES = Path(__file__).parents[1] / "examples"
LOGS = Path(__file__).parents[1] / "tuner" / "learn_to_ask" / "sample_data" / "test_origin.jsonl"


def first_five(path):
    return path.read_bytes().splitlines(keepends=True)[:5]


@pytest.mark.parametrize(
    ("name", "record", "key"),
    [
        ("sessions", Session, "session_id"),
        ("judgements", Judgement, "session_id"),
        ("samples", Sample, "cid"),
        ("tasks", Task, "cid"),
        ("rollouts", TaskWithRollouts, "cid"),
        ("evaluation", GradedTask, "cid"),
        ("interviews", Interview, "session_id"),
    ],
)
def test_there_are_five_lines_of_every_format_and_each_is_one_record(name, record, key):
    report = ReadReport()
    assert len(list(read_jsonl(EXAMPLES / f"{name}.jsonl", record, unique_key=key, report=report))) == 5
    assert not report.skipped_rows


def test_the_sessions_are_those_of_the_sample_logs():
    assert first_five(EXAMPLES / "sessions.jsonl") == first_five(LOGS)


def test_the_judgements_are_those_of_the_offline_judge_on_the_sessions():
    sessions = read_jsonl(EXAMPLES / "sessions.jsonl", Session, unique_key="session_id", report=ReadReport())
    judgements = read_jsonl(EXAMPLES / "judgements.jsonl", Judgement, unique_key="session_id", report=ReadReport())
    for session, judgement in zip(sessions, judgements, strict=True):
        score, think = parse_score(judge_answer(judging_messages(session.messages, MEDICAL), MEDICAL), name="teaches")
        assert judgement == Judgement(session_id=session.session_id, score=score, think=think)


@pytest.mark.parametrize(("script", "given", "made"), [(extract, "sessions", "samples"), (build, "samples", "tasks")])
def test_the_scripts_make_the_same_samples_and_tasks(script, given, made, tmp_path):
    shutil.copy(EXAMPLES / f"{given}.jsonl", tmp_path / "in.jsonl")
    assert script(tmp_path).returncode == 0
    assert first_five(tmp_path / "out.jsonl") == first_five(EXAMPLES / f"{made}.jsonl")


def test_script_3_makes_the_same_evaluation_of_the_rollouts(tmp_path):
    shutil.copy(EXAMPLES / "tasks.jsonl", tmp_path / "in.jsonl")
    shutil.copy(EXAMPLES / "rollouts.jsonl", tmp_path / "out.jsonl")
    assert evaluate(tmp_path, "--resume", "--rollout_repeat=2").returncode == 0
    assert (tmp_path / "eval.jsonl").read_bytes() == (EXAMPLES / "evaluation.jsonl").read_bytes()


def test_the_users_of_the_interviews_answer_the_same_questions_as_before(tmp_path):
    shutil.copy(LOGS, tmp_path / "in.jsonl")
    assert extract(tmp_path).returncode == 0
    samples = read_jsonl(tmp_path / "out.jsonl", Sample, unique_key="cid", report=ReadReport())
    users = {sample.session_id: make_patient(sample, MEDICAL) for sample in samples if is_first_of_session(sample)}
    for interview in read_jsonl(EXAMPLES / "interviews.jsonl", Interview, unique_key="session_id", report=ReadReport()):
        user = users[interview.session_id]
        assert interview.facts == list(user.facts)
        for course in (interview.held, interview.logged):
            known = set()
            for turn in course.turns:
                assert turn == answer(user, turn.question, known)
                known |= set(turn.facts)
