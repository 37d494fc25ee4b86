"""The logged expert's own next messages as a reference: what is known of them, and how script 3 has them graded."""

import json
import signal
from collections import Counter
from functools import partial

import pytest
from fault_server import GOOD, HANG, http_error, in_order
from hypothesis import given
from hypothesis import strategies as st
from sessions import END, session
from step_three import GOOD_GRADE, job, records
from test_overlap import grader, policy, run, start

from tuner.learn_to_ask.core.labels import decision_truth
from tuner.learn_to_ask.core.records import GradedTask, Task
from tuner.learn_to_ask.core.segmentation import segment
from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.grade_rollouts import evaluate
from tuner.learn_to_ask.evaluation.logged_reference import (
    check_reference,
    grade_reference,
    is_reference,
    longest_contexts,
    next_message,
    reference_files,
)

MEDICAL = load_domain("medical_en")
SUPPORT = load_domain("it_support")

COUGH = session(
    "p: i have a cough",
    "d: since when?",
    "d: is it dry?",
    "p: since monday",
    "p: and dry",
    "d: any fever?",
    "p: no",
    f"d: {END}",
)


def tasks_of(one):
    """As step B makes them, whatever the extractor found."""
    return [
        Task(
            cid=sample.cid,
            session_id=sample.session_id,
            messages=sample.messages,
            decision_truth=decision_truth(sample.remaining_chat),
            info_truth="symptom: cough",
        )
        for sample in segment(one)
    ]


def known(tasks, domain=MEDICAL):
    """cid -> what the expert is known to have said next."""
    dialogues = longest_contexts(tasks)
    return {task.cid: next_message(task, dialogues[task.session_id], domain) for task in tasks}


def test_messages_that_follow_each_other_are_one_and_where_the_log_ends_it_is_the_stop_token():
    assert known(tasks_of(COUGH)) == {"1_0": "since when?\nis it dry?", "1_4": "any fever?", "1_6": "<stop />"}


def test_a_sample_that_step_b_dropped_hides_nothing():
    first, _, last = tasks_of(COUGH)

    assert known([first, last]) == {"1_0": "since when?\nis it dry?", "1_6": "<stop />"}


def test_in_a_session_that_was_cut_the_last_message_is_not_known():
    assert known(tasks_of(COUGH)[:2]) == {"1_0": "since when?\nis it dry?", "1_4": None}


def test_a_session_with_one_sample_to_continue_from_tells_nothing():
    assert known(tasks_of(COUGH)[:1]) == {"1_0": None}


def test_of_two_logs_with_one_session_id_neither_speaks_for_the_other():
    other = session("p: my eye is red", "d: does it itch?", "p: yes", "d: <med_search>")
    tasks = [*tasks_of(COUGH), *(task.model_copy(update={"cid": f"other {task.cid}"}) for task in tasks_of(other))]

    assert known(tasks)["other 1_0"] is None
    assert known(tasks)["1_0"] == "since when?\nis it dry?"


def test_an_expert_who_ended_it_and_was_asked_on_has_stopped():
    went_on = session("p: i have a cough", "d: take care", f"d: {END}", "p: and a fever", "d: since when?", "p: monday")

    assert known(tasks_of(went_on))["1_0"] == "<stop />"


def test_every_domain_has_its_own_stop_token_and_end_marker():
    printer = session("p: the printer is dead", "d: which one?", "p: the big one", "d: <open_ticket>")

    assert known(tasks_of(printer), SUPPORT) == {"1_0": "which one?", "1_2": "<ticket />"}


LOGS = st.lists(
    st.lists(st.tuples(st.sampled_from("pd"), st.sampled_from(["one", "two", "three"])), min_size=1, max_size=9),
    min_size=1,
    max_size=4,
)


@given(LOGS, st.randoms(use_true_random=False))
def test_in_any_order_it_is_what_follows_in_the_log(logs, random):
    sessions = [
        session(*(f"{side}: {text}" for side, text in lines), session_id=str(number))
        for number, lines in enumerate(logs)
    ]
    tasks = [task for one in sessions for task in tasks_of(one)]
    found = known(random.sample(tasks, len(tasks)))

    for one in sessions:
        for task in tasks_of(one):
            # Slowly: everything that the doctor says until the patient speaks again.
            said = []
            for message in one.messages[len(task.messages) :]:
                if message["role"] == "user":
                    break
                said.append(message["content"])
            assert found[task.cid] == ("<stop />" if task.decision_truth == "stop" else "\n".join(said))


# The files


def write(folder, tasks):
    test_file = folder / "test.jsonl"
    test_file.write_text("".join(task.model_dump_json() + "\n" for task in tasks))
    return test_file, *reference_files(folder / "rollout.jsonl", folder / "eval.jsonl")


def graded(test_file, *reference, rule=lambda messages: GOOD_GRADE, domain=MEDICAL, **settings):
    """As script 3 does it."""
    repeat = settings.pop("grade_repeat", 1)
    flags = {"resume": False, "overwrite": False, **settings}
    check_reference(test_file, *reference, domain=domain, grade_repeat=repeat, **flags)
    grade = partial(evaluate, test_file=test_file, settings=job(rule, **flags), domain=domain, grade_repeat=repeat)
    return grade_reference(grade, test_file, *reference, domain=domain)


def test_the_reference_is_an_evaluation_of_what_is_known(tmp_path, capsys):
    cut = [task.model_copy(update={"cid": f"2{task.cid}", "session_id": "21"}) for task in tasks_of(COUGH)[:2]]
    test_file, rollouts, evaluation = write(tmp_path, [*tasks_of(COUGH), *cut])
    asked = []

    assert graded(test_file, rollouts, evaluation, rule=lambda messages: asked.append(messages) or GOOD_GRADE) == 0

    assert [(one["cid"], one["rollouts"]) for one in records(evaluation)] == [
        ("1_0", ["since when?\nis it dry?"]),
        ("1_4", ["any fever?"]),
        ("1_6", ["<stop />"]),
        ("21_0", ["since when?\nis it dry?"]),
    ]
    assert {one["policy"] for one in records(evaluation)} == {"logged doctor"}
    assert [one["grades"][0]["action_score"] for one in records(evaluation)] == [1.0] * 4
    assert {GradedTask.model_validate(one).sampling_applied for one in records(evaluation)} == {None}
    # The grader sees several messages as one, and is asked for no stop.
    assert asked[0][-1]["content"].splitlines()[-1] == "doctor: since when? is it dry?"
    assert len(asked) == 3
    shown = capsys.readouterr().out
    assert "  left out, next message unknown  1\n" in shown
    assert "  over 4 of 5 samples\n" in shown


def test_a_reference_is_known_by_its_policy():
    assert is_reference(["logged doctor"]) and is_reference(["logged agent"])
    assert not is_reference(["vllm:logged doctor"]) and not is_reference([]) and not is_reference([""])
    assert not is_reference(["logged doctor", "vllm:x"])


@pytest.mark.parametrize("keep", [slice(0, 1), slice(2, 3)], ids=["one sample of the session", "only where it stops"])
def test_a_test_set_that_tells_no_message_is_refused_in_one_line(tmp_path, keep):
    test_file, *reference = write(tmp_path, tasks_of(COUGH)[keep])

    with pytest.raises(
        UserError, match=r"--grade_reference: .*test\.jsonl tells no next message of the doctor"
    ) as said:
        graded(test_file, *reference)

    assert "\n" not in str(said.value)
    assert [path.name for path in tmp_path.iterdir()] == ["test.jsonl"]


def test_a_log_that_holds_the_stop_token_is_refused(tmp_path):
    quoted = session("p: i saw <stop /> on the screen", "d: where?", "p: there", f"d: {END}")
    test_file, *reference = write(tmp_path, tasks_of(quoted))

    with pytest.raises(UserError, match="holds '<stop />', the stop token of domain medical_en"):
        graded(test_file, *reference)


def test_bad_lines_of_the_test_set_are_passed_over(tmp_path):
    test_file, *reference = write(tmp_path, tasks_of(COUGH))
    test_file.write_text("prose\n" + test_file.read_text())

    assert graded(test_file, *reference) == 0
    assert [one["cid"] for one in records(reference[1])] == ["1_0", "1_4", "1_6"]


def test_a_finished_reference_stays_unless_told_otherwise(tmp_path, capsys):
    test_file, *reference = write(tmp_path, tasks_of(COUGH))
    graded(test_file, *reference)

    with pytest.raises(UserError, match=r"reference_eval\.jsonl: exists; pass --overwrite"):
        graded(test_file, *reference)

    def refuse(messages):
        raise AssertionError("asked again")

    capsys.readouterr()
    assert graded(test_file, *reference, rule=refuse, resume=True) == 0
    assert "already complete" in capsys.readouterr().out
    graded(test_file, *reference, overwrite=True, grade_repeat=2)
    assert records(reference[1])[0]["regrades"] == [[{"think": "fits", "format_score": 1.0, "content_score": 0.5}]]


def test_gradings_that_all_fail_write_nothing(tmp_path):
    test_file, *reference = write(tmp_path, tasks_of(COUGH))

    with pytest.raises(UserError, match=r"reference_eval\.jsonl: not written"):
        graded(test_file, *reference, rule=lambda messages: "no idea")

    assert not reference[1].exists()


# The flag

FLAGS = ("--grade_reference",)


def test_script_3_grades_the_reference_after_the_policy_and_goes_on_where_it_was_interrupted(tmp_path):
    write(tmp_path, tasks_of(COUGH))
    # Given a grader that answers about the policy's two questions and the first of the two logged ones, then hangs
    with policy() as policy_server, grader(in_order(GOOD, GOOD, GOOD, HANG)) as grader_server:
        process = start(tmp_path, policy_server, grader_server, *FLAGS)
        grader_server.wait_until(lambda server: server.received == 4)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert {path.name for path in tmp_path.iterdir()} >= {"eval.jsonl", "reference_rollouts.jsonl"}
        asked = policy_server.received, grader_server.received
        # When it is resumed, then only what is missing is asked for
        done = run(tmp_path, policy_server, grader_server, *FLAGS, "--resume")
        assert (policy_server.received - asked[0], grader_server.received - asked[1]) == (0, 1)
    assert done.returncode == 0, done.stderr
    assert [one["rollouts"] for one in records(tmp_path / "reference_eval.jsonl")] == [
        ["since when?\nis it dry?"], ["any fever?"], ["<stop />"],
    ]  # fmt: skip
    assert {one["grader"] for one in records(tmp_path / "reference_eval.jsonl")} == {
        one["grader"] for one in records(tmp_path / "eval.jsonl")
    }


def test_script_3_refuses_before_anything_is_paid_for(tmp_path):
    write(tmp_path, tasks_of(COUGH)[:1])

    with policy() as policy_server, grader() as grader_server:
        done = run(tmp_path, policy_server, grader_server, *FLAGS)
        assert (policy_server.received, grader_server.received) == (0, 0)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("error: --grade_reference: test.jsonl tells no next message of the doctor")


def test_a_run_that_failed_before_it_began_leaves_nothing_in_the_way(tmp_path):
    write(tmp_path, tasks_of(COUGH))
    with policy(lambda call: http_error(401)) as policy_server, grader() as grader_server:
        failed = run(tmp_path, policy_server, grader_server, *FLAGS)
    assert failed.returncode == 2

    with policy() as policy_server, grader() as grader_server:
        done = run(tmp_path, policy_server, grader_server, *FLAGS)

    assert done.returncode == 0, done.stderr
    assert Counter(json.dumps(one["rollouts"]) for one in records(tmp_path / "reference_rollouts.jsonl")).total() == 3
