"""The judge's file: what an interrupted run leaves, and that it is continued only for the same sessions."""

import pytest
from medical import MEDICAL
from run_scripts import read, write
from sessions import healthy, record

from tuner.learn_to_ask.data_prepare.curation.judge import JudgeSettings, judge_sessions
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.offline import OfflineEngine
from tuner.learn_to_ask.errors import UserError

SESSIONS = [healthy(str(number), what=what) for number, what in enumerate(("a cough", "a cold", "a rash"))]


class Judge:
    """Notes what it is asked, and is interrupted at a call."""

    __name__ = "judge"

    def __init__(self, interrupted_at=None):
        self.asked = []
        self.interrupted_at = interrupted_at

    def __call__(self, messages):
        if len(self.asked) == self.interrupted_at:
            raise KeyboardInterrupt
        self.asked.append(messages[-1]["content"])
        return "<think>fine</think><teaches>1.0</teaches>"


def judge(folder, answer, *, rules="the same", resume=False):
    write(folder / "in.jsonl", *map(record, SESSIONS))
    job = JobSettings(
        make_engine=lambda: OfflineEngine(answer), max_retries=0, max_failures=0.0, resume=resume, overwrite=False
    )
    settings = JudgeSettings(job=job, judgements_file=folder / "judged.jsonl", least=0.5, domain=MEDICAL)
    return judge_sessions(iter(SESSIONS), input_file=folder / "in.jsonl", rules=rules, settings=settings)


def test_an_interrupted_judge_is_asked_about_the_others_only(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        judge(tmp_path, Judge(interrupted_at=2))
    again = Judge()

    assert judge(tmp_path, again, resume=True) == 0

    assert ["a rash" in asked for asked in again.asked] == [True]
    assert read(tmp_path / "judged.jsonl") == [
        {"session_id": str(number), "score": 1.0, "think": "fine"} for number in range(3)
    ]


def test_with_other_rules_other_sessions_pass_and_nothing_is_mixed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        judge(tmp_path, Judge(interrupted_at=2))

    with pytest.raises(UserError, match=r"cannot resume, the unfinished run differs: rules was .*--overwrite"):
        judge(tmp_path, Judge(), rules="others", resume=True)
