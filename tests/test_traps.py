"""What tune() does behind one's back, where no other test would notice that it came back.

The other traps of agentscope 1.0.21 and trinity-rft 0.5.2 are watched where they bite: temperature, seed and special
tokens in test_main.py, the reasoning parser and the checkpoint interval in test_training_outcome.py and
test_configs.py, unknown keys in test_config_file.py, the train split in test_dataset.py, the end token and the real
run in test_training.py.
"""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from fault_server import Fault, FaultServer

from tuner.learn_to_ask import main
from tuner.learn_to_ask.training.config_file import ENGINE_HOMES, HOMES

RECIPE = Path(__file__).parents[1] / "tuner" / "learn_to_ask"
TASK = {
    "cid": "7_1",
    "messages": [{"role": "user", "content": "i have a cough"}],
    "decision_truth": "continue",
    "info_truth": "symptom nature: dry cough",
}
GRADE = "<think>fits</think><format_score>1.0</format_score><content_score>0.5</content_score>"
GROUP = 5


@pytest.mark.slow
def test_every_key_that_tune_overwrites_has_its_home_elsewhere(tmp_path):
    # Given: a config whose every key of that kind holds a value that tune() would not choose.
    from agentscope.tuner import AlgorithmConfig, DatasetConfig, TunerModelConfig
    from agentscope.tuner._config import _to_trinity_config
    from trinity.common.config import load_config

    config = yaml.safe_load((RECIPE / "config.yaml").read_text())
    config["buffer"] = {"explorer_input": {"taskset": {"path": "mine", "split": "mine", "workflow_args": {"mine": 1}}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    model = TunerModelConfig(model_path="theirs", max_model_len=7, max_tokens=3, reasoning_parser="")

    # When: tune() makes its config of it.
    before = load_config(str(tmp_path / "config.yaml")).flatten()
    after = _to_trinity_config(
        config_path=str(tmp_path / "config.yaml"),
        workflow_func=main.run_react_agent,
        judge_func=main.learn2ask_judge,
        model=model,
        auxiliary_models={"auxiliary_model": model},
        train_dataset=DatasetConfig(path="theirs", split="theirs", name="theirs", total_epochs=9, total_steps=9),
        algorithm=AlgorithmConfig(
            algorithm_type="theirs",
            learning_rate=9.0,
            group_size=9,
            batch_size=9,
            save_interval_steps=9,
            eval_interval_steps=9,
        ),
    ).flatten()

    # Then: all that changed is refused in the file, but for the functions, which are added to what the user gave.
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    args = "buffer.explorer_input.taskset.workflow_args"
    assert {key for key in changed if key.startswith(args)} == {f"{args}.workflow_func", f"{args}.judge_func"}
    # What it sets of the engines either is a flag, or is put back by main.py (test_configs.py).
    engines = ("explorer.rollout_model.", "explorer.auxiliary_models.")
    homes = (args, *engines, *HOMES)
    assert {key for key in changed if not key.startswith(homes)} == set()
    flags = {key.rpartition(".")[2] for key in changed if key.startswith(engines)} & ENGINE_HOMES.keys()
    assert {"model_path", "max_model_len", "reasoning_parser"} <= flags
    assert {"trainer.save_interval", "explorer.eval_interval", "algorithm.optimizer.lr"} <= changed


class Model:
    """Speaks the part of AgentScope's chat model that an agent uses; always asks the same."""

    stream = False
    model_name = "same"

    def __init__(self, before_answer):
        self.generate_kwargs = {}
        self._before_answer = before_answer

    async def __call__(self, messages, **_):
        from agentscope.message import TextBlock
        from agentscope.model import ChatResponse

        await self._before_answer(messages)
        return ChatResponse(content=[TextBlock(type="text", text="Is it dry?")])


def roll_out_group(before_answer):
    """The responses of a whole group that is rolled out in one event loop."""

    async def group():
        workflow = main.make_workflow(main.TrainingSettings(grader="offline"))
        return await asyncio.gather(*(workflow(TASK, Model(before_answer), {}) for _ in range(GROUP)))

    return [output.response.get_text_content() for output in asyncio.run(group())]


def test_the_rollouts_of_a_group_run_at_once_in_one_runner():
    # Given: models that answer nobody before the whole group has asked.
    everyone = asyncio.Barrier(GROUP)

    async def wait_for_all(_):
        await asyncio.wait_for(everyone.wait(), timeout=30)

    assert roll_out_group(wait_for_all) == ["Is it dry?"] * GROUP


def test_the_rollouts_of_a_group_share_their_whole_prompt():
    # An engine with a prefix cache then reads it once for all of them.
    prompts = []

    async def note(messages):
        prompts.append(json.dumps(messages))

    roll_out_group(note)

    assert len(prompts) == GROUP
    assert len(set(prompts)) == 1


def test_the_grades_of_a_group_are_asked_for_at_once(monkeypatch):
    from agentscope.message import Msg

    monkeypatch.setenv("GRADER_KEY", "sk-none")
    with FaultServer(lambda _: Fault(delay=0.5), answer=lambda _: GRADE) as server:
        settings = main.TrainingSettings(
            grader="openai", grader_base_url=server.base_url, grader_model="judge", grader_api_key_env="GRADER_KEY"
        )
        judge = main.make_judge(settings)

        async def group():
            return await asyncio.gather(
                *(judge(TASK, Msg("doctor", "Is it dry?", "assistant"), {}) for _ in range(GROUP))
            )

        outputs = asyncio.run(group())

    assert [output.reward for output in outputs] == [3.0] * GROUP
    assert server.max_in_flight > 1
