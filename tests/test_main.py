"""Workflow and judge of main.py, with a chat model that answers from a list."""

import asyncio
import math
from types import SimpleNamespace

import pytest

from tuner.learn_to_ask import main
from tuner.learn_to_ask.core.reward import STOP
from tuner.learn_to_ask.prompt import rollout_prompt_med, rollout_prompt_med_Ra
from tuner.learn_to_ask.training import grader as grader_module
from tuner.learn_to_ask.training.grader import GradingError, ask_grader

CONTINUE_TASK = {
    "cid": "7_1",
    "messages": [{"role": "user", "content": "i have a cough"}, {"role": "user", "content": "for days"}],
    "decision_truth": "continue",
    "info_truth": "symptom nature: dry cough",
}
STOP_TASK = {**CONTINUE_TASK, "decision_truth": "stop", "info_truth": ""}
GOOD_GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"


class ListedModel:
    """Speaks the part of AgentScope's chat model that agents and judges use; remembers what it was asked."""

    stream = False
    model_name = "listed"

    def __init__(self, *texts):
        self.texts = list(texts)
        self.generate_kwargs = {"top_p": 0.9}
        self.calls = []

    async def __call__(self, messages, tools=None, tool_choice=None, **kwargs):
        from agentscope.message import TextBlock
        from agentscope.model import ChatResponse

        self.calls.append(SimpleNamespace(messages=messages, kwargs={**self.generate_kwargs, **kwargs}))
        return ChatResponse(content=[TextBlock(type="text", text=self.texts.pop(0))])


def roll_out(task, model, *, settings=None, special_tokens=()):
    settings = settings or main.TrainingSettings()
    workflow = main.make_workflow(settings, special_tokens)
    return asyncio.run(workflow(task, model, {"auxiliary_model": ListedModel()})).response


def judge(task, text, *replies, **settings):
    from agentscope.message import Msg

    grader = ListedModel(*replies)
    auxiliary = {"auxiliary_model": grader} if settings.get("grader") != "offline" else {}
    judged = main.make_judge(main.TrainingSettings(**settings))(task, Msg("doctor", text, "assistant"), auxiliary)
    return asyncio.run(judged), grader


def test_the_agent_gets_the_system_prompt_and_every_message_of_the_task():
    model = ListedModel("Is it dry?")

    response = roll_out(CONTINUE_TASK, model)

    assert response.get_text_content() == "Is it dry?"
    [call] = model.calls
    shown = [(message["role"], message["content"][0]["text"]) for message in call.messages]
    assert shown == [("system", rollout_prompt_med), ("user", "i have a cough"), ("user", "for days")]


def test_mode_ra_gets_the_prompt_without_the_stop_rule():
    model = ListedModel("Is it dry?")

    roll_out(CONTINUE_TASK, model, settings=main.TrainingSettings(train_mode="Ra"))

    assert model.calls[0].messages[0]["content"][0]["text"] == rollout_prompt_med_Ra


def test_every_rollout_of_a_group_samples_with_a_seed_of_its_own():
    model = ListedModel(*["Is it dry?"] * 8)

    for _ in range(8):
        roll_out(CONTINUE_TASK, model)

    seeds = {call.kwargs["seed"] for call in model.calls}
    assert len(seeds) == 8
    assert all(call.kwargs["temperature"] == 1.0 and call.kwargs["top_p"] == 0.9 for call in model.calls)


def test_what_the_tinker_engine_leaves_behind_the_end_token_never_reaches_the_judge():
    model = ListedModel(f"{STOP}<|im_end|><|im_end|>noise")

    response = roll_out(STOP_TASK, model, special_tokens=("<|im_end|>", "<|endoftext|>"))

    assert response.get_text_content() == STOP


@pytest.mark.parametrize("auxiliary", [{}, None, {"other": 1}, {"auxiliary_model": 1, "second": 2}])
def test_workflow_and_judge_want_exactly_one_auxiliary_model_of_that_name(auxiliary):
    from agentscope.message import Msg

    with pytest.raises(ValueError, match="auxiliary_model"):
        asyncio.run(main.run_react_agent(CONTINUE_TASK, ListedModel("x"), auxiliary))
    with pytest.raises(ValueError, match="auxiliary_model"):
        asyncio.run(main.learn2ask_judge(CONTINUE_TASK, Msg("doctor", "x", "assistant"), auxiliary))


def test_a_right_question_is_graded_and_its_parts_are_logged_beside_the_reward():
    output, grader = judge(CONTINUE_TASK, "Is it dry?", GOOD_GRADE)

    assert output.reward == 1 + 2 * 0.5 + 1.0
    assert output.metrics == {
        "reward": 3.0,
        "action_score": 1.0,
        "content_score": 0.5,
        "format_score": 1.0,
        "stopped_when_to_continue": 0.0,
        "said_nothing": 0.0,
        "grader_failures": 0.0,
        **tokens_of_grader(output),
    }
    [call] = grader.calls
    assert "symptom nature: dry cough" in call.messages[0]["content"]
    assert call.messages[1]["content"].splitlines()[-1] == "doctor: Is it dry?"


def test_the_graders_own_temperature_reaches_it():
    _, grader = judge(CONTINUE_TASK, "Is it dry?", GOOD_GRADE)

    assert grader.calls[0].kwargs["temperature"] == 0.7


def tokens_of_grader(output):
    """The two counts beside the rest; some tokens each, whose number is tested elsewhere."""
    counts = {name: output.metrics[name] for name in ("grader_prompt_tokens", "grader_answer_tokens")}
    assert min(counts.values()) > 0
    return counts


@pytest.mark.parametrize(
    ("task", "text", "reward"),
    [
        (STOP_TASK, STOP, 4.0),  # 1 * (1 + 2 * 1) + 1
        (STOP_TASK, f"Bye. {STOP}", 3.0),  # right, but not exactly the stop sign
        (STOP_TASK, "Is it dry?", 0.0),
        (CONTINUE_TASK, STOP, 0.0),
    ],
)
def test_decisions_are_rewarded_without_asking_the_grader(task, text, reward):
    output, grader = judge(task, text)

    assert output.reward == reward
    assert grader.calls == []


@pytest.mark.parametrize(
    ("settings", "reward"),
    [
        ({"train_mode": "Ra+Rs", "fusion_mode": "sum"}, 2.5),  # 1 + 0.5 + 1
        ({"train_mode": "Ra"}, 2.0),  # 2 * 0.5 + 1
        ({"train_mode": "Rs"}, 4.0),  # 3 * 1 + 1
    ],
)
def test_every_mode_fuses_the_same_grade(settings, reward):
    output, _ = judge(CONTINUE_TASK, "Is it dry?", GOOD_GRADE, **settings)

    assert output.reward == reward


def test_an_unreadable_grade_is_asked_for_again():
    output, grader = judge(CONTINUE_TASK, "Is it dry?", "no idea", GOOD_GRADE)

    assert output.reward == 3.0
    assert len(grader.calls) == 2


def test_a_rollout_whose_grading_fails_has_no_reward_rather_than_zero_and_is_counted(capsys):
    output, grader = judge(CONTINUE_TASK, "Is it dry?", "no", "idea", "at all")

    assert math.isnan(output.reward)
    assert output.metrics == {
        "action_score": 1.0,
        "stopped_when_to_continue": 0.0,
        "said_nothing": 0.0,
        "grader_failures": 1.0,
        **tokens_of_grader(output),
    }
    assert len(grader.calls) == 3
    assert "left out of the update: the grader gave no readable scores in 3 tries" in capsys.readouterr().err


def test_an_auxiliary_model_that_fails_for_a_moment_is_asked_again(monkeypatch):
    monkeypatch.setattr(grader_module, "_PAUSES", (0.0, 0.0))

    class Recovering(ListedModel):
        async def __call__(self, *arguments, **kwargs):
            if self.texts[0] is None:
                self.texts.pop(0)
                raise ConnectionError("gone")
            return await super().__call__(*arguments, **kwargs)

    recovering = Recovering(None, None, GOOD_GRADE)
    scores = asyncio.run(ask_grader([], {"auxiliary_model": recovering}, main.TrainingSettings().grader_settings()))
    assert scores.content_score == 0.5

    with pytest.raises(GradingError, match="the auxiliary model failed: ConnectionError"):
        gone = Recovering(None, None, None)
        asyncio.run(ask_grader([], {"auxiliary_model": gone}, main.TrainingSettings().grader_settings()))


def test_a_grader_that_hangs_is_given_up_within_half_the_time_of_a_rollout():
    class Hanging(ListedModel):
        async def __call__(self, *arguments, **kwargs):
            await asyncio.Event().wait()

    settings = main.TrainingSettings().grader_settings(rollout_seconds=0.1)

    with pytest.raises(GradingError, match=r"no readable scores within 0\.05 s"):
        asyncio.run(ask_grader([], {"auxiliary_model": Hanging()}, settings))


def test_the_offline_grader_needs_no_auxiliary_model():
    output, _ = judge(CONTINUE_TASK, "Is there any phlegm: A) dry cough, B) yellow phlegm?", grader="offline")

    assert output.metrics["content_score"] == 1.0
    assert output.metrics["format_score"] == 1.0


def test_a_task_without_a_decision_counts_as_continue():
    task = {key: value for key, value in CONTINUE_TASK.items() if key != "decision_truth"}

    output, _ = judge(task, STOP)

    assert output.reward == 0.0


def test_tune_accepts_the_signatures_of_workflow_and_judge():
    from agentscope.tuner import check_judge_function, check_workflow_function

    check_workflow_function(main.run_react_agent)
    check_judge_function(main.learn2ask_judge)


def test_the_defaults_are_the_published_run():
    settings = main.TrainingSettings()

    assert (settings.model_path, settings.auxiliary_model_path) == (
        "Qwen/Qwen2.5-7B-Instruct",
        "Qwen/Qwen2.5-32B-Instruct",
    )
    assert (settings.group_size, settings.batch_size, settings.total_epochs) == (5, 64, 4)
    assert (settings.max_model_len, settings.max_tokens) == (8192, 1024)
    assert settings.resolved_learning_rate(tinker=False) == 5e-7
    gpus = settings.inference_engine_num * settings.tensor_parallel_size
    grader_gpus = settings.auxiliary_engine_num * settings.auxiliary_tensor_parallel_size
    assert (gpus, grader_gpus, 8 - gpus - grader_gpus) == (4, 2, 2)


def test_lora_on_tinker_has_a_learning_rate_of_its_own_ten_times_higher():
    assert main.TrainingSettings().resolved_learning_rate(tinker=True) == 5e-6
    assert main.TrainingSettings(learning_rate=1e-4).resolved_learning_rate(tinker=True) == 1e-4
    assert main.TrainingSettings(learning_rate=1e-4).resolved_learning_rate(tinker=False) == 1e-4


def test_the_help_shows_both_learning_rates(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py", "--help"])

    with pytest.raises(SystemExit):
        main.main()

    [said] = [text for text in capsys.readouterr().out.split("\n  --") if text.startswith("learning_rate")]
    assert "5e-07" in said
    assert "5e-06" in said
