"""Policies, graders and a test set of three samples for script 3's two halves."""

import json
from dataclasses import replace

from medical import MEDICAL

from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.evaluation.grade_rollouts import evaluate
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_SAMPLING, roll_out

GOOD_GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"


def task(cid, decision, info=""):
    return {
        "cid": cid,
        "session_id": cid.split("_")[0],
        "diagn": "Cold",
        "messages": [{"role": "user", "content": f"patient of {cid}"}],
        "decision_truth": decision,
        "info_truth": info,
    }


TASKS = [task("1_0", "continue", "symptom: cough"), task("1_2", "stop"), task("2_0", "continue", "symptom: fever")]


def ask_or_stop(messages):
    """A policy that stops for 1_2 and asks otherwise."""
    return "<stop />" if "1_2" in messages[-1]["content"] else "Do you cough?"


def good_grader(messages):
    return GOOD_GRADE


def deaf_grader(messages):
    return GOOD_GRADE if "patient of 1_0" in messages[-1]["content"] else "no idea"


def job(answer, **overrides):
    """Settings of a job whose engine is a plain function."""
    given = {"max_retries": 0, "max_failures": 0.0, "resume": False, "overwrite": False, **overrides}
    return JobSettings(make_engine=lambda: OfflineEngine(answer), **given)


JOB = ("max_retries", "max_failures", "resume", "overwrite")


def run_rollout(files, policy=ask_or_stop, **overrides):
    settings = job(policy, **{name: overrides.pop(name) for name in JOB if name in overrides})
    given = {"sampling": replace(ROLLOUT_SAMPLING, n=3), "train_mode": "Ra+Rs", "strict": False, **overrides}
    return roll_out(test_file=files[0], rollout_file=files[1], settings=settings, domain=MEDICAL, **given)


def run_evaluation(files, grader=good_grader, **overrides):
    settings = job(grader, **{"max_retries": 1, **{name: overrides.pop(name) for name in JOB if name in overrides}})
    return evaluate(
        test_file=files[0], rollout_file=files[1], eval_file=files[2], settings=settings, domain=MEDICAL, **overrides
    )


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbered_task(number):
    """Every fourth is to be stopped at, which costs no grading."""
    return {
        "cid": f"{number}_0",
        "session_id": str(number),
        "diagn": "Cold",
        "messages": [{"role": "user", "content": f"patient {number}"}],
        "decision_truth": "stop" if number % 4 == 3 else "continue",
        "info_truth": "symptom: cough",
    }
