"""Script 3 with --interviews: whole interviews with the same policy, before the rollouts, resumed as they are."""

import json

import pytest
from fault_server import GOOD, FaultServer
from interviews import QUESTIONS, STOP, diarrhea
from run_scripts import EVALUATE, error_of, evaluate, names_in, read, run

from tuner.learn_to_ask.cli import EXIT_DONE
from tuner.learn_to_ask.core.records import Task


@pytest.fixture
def folder(tmp_path):
    """Samples of one session and the task of its first."""
    sample = diarrhea("7")
    task = Task(
        cid=sample.cid,
        session_id="7",
        diagn="Cold",
        messages=sample.messages,
        decision_truth="continue",
        info_truth=", ".join(sample.info_set),
    )
    (tmp_path / "samples.jsonl").write_text(sample.model_dump_json() + "\n")
    (tmp_path / "in.jsonl").write_text(task.model_dump_json() + "\n")
    return tmp_path


def policy(messages):
    """Asks for every fact, then stops."""
    asked = sum(message["role"] == "assistant" for message in messages)
    return [*QUESTIONS, STOP][asked]


def script(folder, server, *flags):
    return run(
        folder,
        EVALUATE,
        *(f"--eval_base_url={server.base_url}", "--eval_model=policy", "--grader_engine=offline"),
        *("--test_file_path=in.jsonl", "--rollout_file_path=out.jsonl", "--eval_file_path=eval.jsonl"),
        *("--rollout_repeat=2", "--interviews=samples.jsonl", *flags),
    )


def test_the_policy_holds_interviews_and_rolls_out(folder):
    with FaultServer(lambda call: GOOD, answer=policy) as server:
        done = script(folder, server, "--sampling=trained", "--max_tokens=48")
        asked = server.received
        again = script(folder, server, "--sampling=trained", "--max_tokens=48", "--resume")
        assert server.received == asked

    assert (done.returncode, again.returncode) == (EXIT_DONE, EXIT_DONE), done.stderr
    assert names_in(folder) == ["eval.jsonl", "eval_interviews.jsonl", "in.jsonl", "out.jsonl", "samples.jsonl"]
    [interview], [evaluated] = read(folder / "eval_interviews.jsonl"), read(folder / "eval.jsonl")
    assert [turn["facts"] for turn in interview["held"]["turns"]] == [[0], [1], [2]]
    assert (interview["held"]["end"], interview["max_turns"]) == (STOP, 12)
    assert evaluated["rollouts"] == [QUESTIONS[0]] * 2
    # Asked in the same way, one answer at a time
    assert interview["sampling"] == evaluated["sampling"]
    assert interview["policy"] == evaluated["policy"]
    for output in (done.stdout, again.stdout):
        assert "  coverage at stop       1.000" in output
        assert "Total reward" in output


def test_the_interviews_have_a_file_and_a_turn_limit_of_their_own(folder):
    with FaultServer(lambda call: GOOD, answer=policy) as server:
        script(folder, server, "--interview_file_path=talks/all.jsonl", "--max_turns=2")

    [interview] = read(folder / "talks" / "all.jsonl")
    assert (len(interview["held"]["turns"]), interview["held"]["end"]) == (2, None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--interviews=none.jsonl"], "--interviews none.jsonl: no such file"),
        (["--interviews=in.jsonl"], "--interviews in.jsonl: holds no session that can be asked"),
        (["--interviews=samples.jsonl", "--train_mode=Ra"], "--interviews: needs the prompt that says when to stop"),
        (
            ["--interviews=samples.jsonl", "--interview_file_path=samples.jsonl"],
            "--interview_file_path samples.jsonl: exists",
        ),
    ],
)
def test_what_cannot_be_held_is_said_before_anything_is_asked(folder, flags, said):
    failed = evaluate(folder, *flags)

    assert said in error_of_last(failed)
    assert not (folder / "out.jsonl").exists()


def error_of_last(result):
    """The error, whatever lines of the input were named before it."""
    result.stderr = result.stderr.splitlines()[-1] + "\n"
    return error_of(result)


def test_samples_without_facts_are_named_as_the_reason(folder):
    nothing = json.loads((folder / "samples.jsonl").read_text()) | {"info_set": []}
    (folder / "samples.jsonl").write_text(json.dumps(nothing) + "\n")

    assert "without facts (1)" in error_of(evaluate(folder, "--interviews=samples.jsonl"))
