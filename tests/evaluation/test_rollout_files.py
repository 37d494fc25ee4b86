"""Files of an earlier run that do not belong together: named with file and line before the grader is asked."""

import json

import pytest
from fault_server import FaultServer
from hypothesis import given
from hypothesis import strategies as st
from test_overlap import GRADE, run

from tuner.learn_to_ask.core.records import TaskWithRollouts
from tuner.learn_to_ask.evaluation.rollout_files import read_matching


def task(number):
    return {
        "cid": f"{number}_0",
        "session_id": str(number),
        "diagn": "Cold",
        "messages": [{"role": "user", "content": f"patient {number}"}],
        "decision_truth": "continue",
        "info_truth": "symptom: cough",
    }


def rolled_out(number, **changes):
    return {**task(number), "rollouts": ["Do you cough?"], "policy": "openai:x", **changes}


def graded(number, **changes):
    grade = {"think": "", "action_score": 1.0, "format_score": 1.0, "content_score": 0.5}
    return {**rolled_out(number), "grades": [grade], "grader": "openai:y", **changes}


def write(file, records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def resume(tmp_path):
    """Resumes with given rollouts and grades of three tasks, and looks at what the endpoints were asked."""

    def resumed(rollouts, grades=None, *flags, tests=3):
        write(tmp_path / "test.jsonl", [task(number) for number in range(tests)])
        write(tmp_path / "rollouts.jsonl", rollouts)
        if grades is not None:
            write(tmp_path / "eval.jsonl", grades)
        before = {file: file.read_bytes() for file in tmp_path.iterdir()}
        with FaultServer(answer=lambda messages: GRADE) as server:
            done = run(tmp_path, server, server, "--resume", *flags)
            done.asked = server.received
        if done.returncode == 2:
            assert not done.asked
            assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
            [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            done.error = line.removeprefix("error: ")
        return done

    return resumed


def test_rollouts_of_the_test_set_are_graded(resume):
    done = resume([rolled_out(number) for number in range(3)])
    assert (done.returncode, done.asked) == (0, 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cid": "9_9"}, "rollouts.jsonl:2: cid '9_9' is not in --test_file_path test.jsonl"),
        (
            {"messages": [{"role": "user", "content": "another patient"}]},
            "rollouts.jsonl:2: messages of cid '1_0' is not that of test.jsonl:2",
        ),
        ({"decision_truth": "stop"}, "rollouts.jsonl:2: decision_truth of cid '1_0' is not that of test.jsonl:2"),
        ({"info_truth": "symptom: fever"}, "rollouts.jsonl:2: info_truth of cid '1_0' is not that of test.jsonl:2"),
        ({"rollouts": ["one", "two"]}, "rollouts.jsonl:2: holds 2 rollouts, --rollout_repeat asks for 1"),
        ({"rollouts": []}, "rollouts.jsonl:2: holds 0 rollouts, --rollout_repeat asks for 1"),
        ({"rollouts": "one"}, "rollouts.jsonl:2: rollouts: Input should be a valid list"),
        ({"cid": "0_0"}, "rollouts.jsonl:2: duplicate cid '0_0'"),
    ],
    ids=["cid", "messages", "decision", "information", "more", "none", "no list", "duplicate"],
)
def test_a_line_that_is_not_of_the_test_set_is_named(resume, changes, named):
    done = resume([rolled_out(0), rolled_out(1, **changes), rolled_out(2)])
    assert done.returncode == 2
    assert done.error.startswith(named)


def test_rollouts_that_were_cut_off_are_noticed(resume):
    done = resume([rolled_out(0), rolled_out(2)])
    assert done.returncode == 2
    assert done.error.startswith("rollouts.jsonl: lacks 1 of 3 tasks, the first test.jsonl:2 (cid '1_0')")
    assert "--max_failures" in done.error


def test_as_many_missing_rollouts_as_may_fail_are_no_reason_to_stop(resume):
    done = resume([rolled_out(0), rolled_out(2)], None, "--max_failures=0.5")
    assert (done.returncode, done.asked) == (0, 2)


@pytest.mark.parametrize(
    ("changes", "flags", "named"),
    [
        ({"rollouts": ["Fever?"]}, (), "eval.jsonl:2: cid '1_0' has other rollouts in rollouts.jsonl"),
        ({"grades": []}, (), "eval.jsonl:2: the line: 1 rollouts but 0 grades"),
        ({"info_truth": ""}, (), "eval.jsonl:2: info_truth of cid '1_0' is not that of test.jsonl:2"),
        ({}, ("--grade_repeat=2",), "eval.jsonl:1: was graded 1 times, --grade_repeat asks for 2"),
        (
            {"regrades": [[{"think": "", "format_score": 1.0, "content_score": 1.0}]]},
            (),
            "eval.jsonl:2: was graded 2 times, --grade_repeat asks for 1",
        ),
    ],
    ids=["other rollouts", "no grades", "information", "more gradings", "fewer gradings"],
)
def test_a_finished_evaluation_of_something_else_is_not_taken_for_this_one(resume, changes, flags, named):
    rollouts = [rolled_out(number) for number in range(3)]
    done = resume(rollouts, [graded(0), graded(1, **changes), graded(2)], *flags)
    assert done.returncode == 2
    assert done.error.startswith(named)


def test_an_evaluation_that_was_cut_off_is_noticed(resume):
    done = resume([rolled_out(number) for number in range(3)], [graded(0), graded(1)])
    assert done.returncode == 2
    assert done.error.startswith("eval.jsonl: lacks 1 of the tasks in rollouts.jsonl")


def test_a_finished_evaluation_of_these_rollouts_is_complete(resume):
    done = resume([rolled_out(number) for number in range(3)], [graded(number) for number in range(3)])
    assert (done.returncode, done.asked) == (0, 0)
    assert "eval.jsonl: already complete" in done.stdout


def test_grades_without_their_rollouts_do_not_start_new_ones(resume, tmp_path):
    write(tmp_path / "test.jsonl", [task(0)])
    write(tmp_path / "eval.jsonl", [graded(0)])
    with FaultServer() as server:
        done = run(tmp_path, server, server, "--resume")
        assert (done.returncode, server.received) == (2, 0)
    assert "rollouts.jsonl, which it grades, is not there" in done.stderr


@given(st.lists(st.sampled_from(["good", "bad", "blank"]), max_size=12), st.data())
def test_index_and_line_are_those_of_the_file_whatever_is_skipped_in_the_test_set(tmp_path_factory, lines, data):
    # Given a test set with bad and blank lines, and rollouts of some of its tasks
    folder = tmp_path_factory.mktemp("match")
    written = {"bad": "no JSON", "blank": ""}
    (folder / "test.jsonl").write_text(
        "".join((written[kind] if kind in written else json.dumps(task(n))) + "\n" for n, kind in enumerate(lines))
    )
    good = [number for number, kind in enumerate(lines) if kind == "good"]
    chosen = data.draw(st.permutations(good))[: len(good) // 2]
    write(folder / "rollouts.jsonl", [rolled_out(number) for number in chosen])
    # Then each comes with its place among the good lines
    found = list(read_matching(folder / "test.jsonl", folder / "rollouts.jsonl", TaskWithRollouts))
    assert [(index, line, record.cid) for index, line, record in found] == [
        (good.index(number), line, f"{number}_0") for line, number in enumerate(chosen, start=1)
    ]
