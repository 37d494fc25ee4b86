"""Step 3 goes on where it stopped, with the settings it was started with, and replaces nothing."""

import pytest
from step_three import GOOD_GRADE, records, run_evaluation, run_rollout

from tuner.learn_to_ask.cli import EXIT_DONE
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_SAMPLING


def test_an_unfinished_evaluation_is_not_continued_with_another_number_of_gradings(files):
    run_rollout(files)
    asked = []

    def interrupted(messages):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(messages)
        return GOOD_GRADE

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(files, interrupted)
    with pytest.raises(UserError, match="grade_repeat was 1, is now 2"):
        run_evaluation(files, interrupted, resume=True, grade_repeat=2)


def test_direct_rollouts_are_not_continued_by_the_agent(files):
    def dies(messages):
        if "1_0" not in messages[-1]["content"]:
            raise KeyboardInterrupt
        return "Do you cough?"

    with pytest.raises(KeyboardInterrupt):
        run_rollout(files, dies)

    with pytest.raises(UserError, match="rollout_mode was direct, is now react"):
        run_rollout(files, dies, resume=True, rollout_mode="react")


def test_an_interrupted_run_is_resumed_without_asking_twice(files):
    run_rollout(files)
    undisturbed = files[2].with_name("undisturbed.jsonl")
    run_evaluation((files[0], files[1], undisturbed))
    asked = []

    def fails_at_the_fifth(messages):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(messages[-1]["content"])
        return GOOD_GRADE

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(files, fails_at_the_fifth)
    assert not files[2].exists()

    def resumed(messages):
        asked.append(messages[-1]["content"])
        return GOOD_GRADE

    fails_at_the_fifth.__name__ = resumed.__name__ = "grader"
    with pytest.raises(UserError, match=r"engine was offline:fails_at_the_fifth, is now offline:grader"):
        run_evaluation(files, resumed, resume=True)
    resumed.__name__ = "fails_at_the_fifth"
    assert run_evaluation(files, resumed, resume=True) == EXIT_DONE

    expected = undisturbed.read_text().replace("offline:good_grader", "offline:fails_at_the_fifth")
    assert files[2].read_text() == expected
    # The first sample was finished: its three grades were not asked for again.
    assert sum("patient of 1_0" in text for text in asked) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [({"train_mode": "Ra"}, "prompt was"), ({"sampling": ROLLOUT_SAMPLING}, "sampling was")],
)
def test_a_resume_with_other_settings_is_refused_with_the_difference_named(files, change, named):
    def dies(messages):
        if "1_0" not in messages[-1]["content"]:
            raise KeyboardInterrupt
        return "Do you cough?"

    with pytest.raises(KeyboardInterrupt):
        run_rollout(files, dies)

    with pytest.raises(UserError, match=named):
        run_rollout(files, dies, resume=True, **change)


def test_resuming_a_finished_run_does_nothing_and_succeeds(files, capsys):
    def never_asked(messages):
        raise AssertionError("nothing was left to do")

    run_rollout(files)
    run_evaluation(files)

    assert run_rollout(files, never_asked, resume=True) == EXIT_DONE
    assert run_evaluation(files, never_asked, resume=True) == EXIT_DONE
    assert "already complete" in capsys.readouterr().out


def test_finished_files_are_not_replaced_unless_told_so(files):
    run_rollout(files)
    before = files[1].read_bytes()

    with pytest.raises(UserError, match="--overwrite"):
        run_rollout(files, lambda messages: "other")
    assert files[1].read_bytes() == before

    run_rollout(files, lambda messages: "other", overwrite=True)
    assert records(files[1])[0]["rollouts"] == ["other"] * 3
