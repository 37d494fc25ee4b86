"""Train a policy with GRPO: ReAct rollouts, an LLM as a judge, AgentScope's tune() on Trinity-RFT.

Examples:
  # 8 GPUs: 4 roll out, 2 grade, 2 train
  python tuner/learn_to_ask/main.py

  # no GPU: export TINKER_API_KEY, name models that Tinker offers
  python tuner/learn_to_ask/main.py --config tuner/learn_to_ask/configs/tinker.yaml \\
    --model_path Qwen/Qwen3-8B --auxiliary_model_path Qwen/Qwen3.6-35B-A3B --inference_engine_num 1

  # 2 or 4 GPUs, several nodes: each file in configs/ begins with its command

  # what a run would stumble over, and how many tokens it takes by your provider's prices; neither starts anything
  python tuner/learn_to_ask/main.py --check
  python tuner/learn_to_ask/main.py --estimate --price_prefill USD --price_sample USD --price_train USD

  # everything on a laptop, with sample data and a tiny policy
  make quickstart
"""

import argparse
import asyncio
import dataclasses
import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.agent import AGENT_NAME, react_reply
from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, EXIT_TERMINATED, HelpFormatter, print_summary, run
from tuner.learn_to_ask.config_file import RunConfig, has_flash_attention, read_config, write_effective_config
from tuner.learn_to_ask.dataset import stage_dataset, train_file
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.estimate import GRADE_TOKENS, RESPONSE_TOKENS, TrainingPrices, estimate, print_estimate
from tuner.learn_to_ask.grader import (
    AUXILIARY_MODEL_NAME,
    GRADERS,
    Grader,
    GraderSettings,
    GradingError,
    ask_grader,
    reply_of_grader,
)
from tuner.learn_to_ask.prompt import grading_messages
from tuner.learn_to_ask.ray_cluster import cluster_address, end_stale_actors
from tuner.learn_to_ask.responses import cut_at_special_token, strip_reasoning
from tuner.learn_to_ask.resume import (
    check_same_run,
    disk_problem,
    identity,
    last_checkpoint,
    only_run,
    record,
    rewind,
    save_sampler_weights,
)
from tuner.learn_to_ask.reward import (
    FUSION_MODES,
    TRAIN_MODES,
    FusionMode,
    TrainMode,
    decision,
    grade,
    needs_grader,
    reward,
)

if TYPE_CHECKING:
    from agentscope.message import Msg
    from agentscope.model import OpenAIChatModel
    from agentscope.tuner import JudgeOutput, WorkflowOutput

    from tuner.learn_to_ask.records import Decision

FULL_LEARNING_RATE = 5e-7  # of the published run, which trains the whole policy
LORA_LEARNING_RATE = 5e-6  # ten times that, since LoRA takes larger steps to get as far


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Everything tune() takes as an argument; each field is a flag. The defaults are the published run."""

    # policy
    model_path: str = "Qwen/Qwen2.5-7B-Instruct"
    max_model_len: int = 8192
    max_tokens: int = 1024
    temperature: float = 1.0
    tensor_parallel_size: int = 1
    inference_engine_num: int = 4
    # grader
    grader: Grader = "auxiliary"
    auxiliary_model_path: str = "Qwen/Qwen2.5-32B-Instruct"
    auxiliary_tensor_parallel_size: int = 2
    auxiliary_engine_num: int = 1
    grader_temperature: float = 0.7
    grader_base_url: str = ""
    grader_model: str = ""
    grader_api_key_env: str = "OPENAI_API_KEY"
    # data
    data: Path = Path("tuner/learn_to_ask/data")
    total_epochs: int = 4
    total_steps: int | None = None
    # reward
    train_mode: TrainMode = "Ra+Rs"
    fusion_mode: FusionMode = "default"
    # GRPO
    group_size: int = 5
    learning_rate: float | None = None
    batch_size: int = 64
    save_interval_steps: int = 90

    def resolved_learning_rate(self, *, tinker: bool) -> float:
        """The learning rate of a run: the one given, else the default of what is trained.

        Args:
            tinker: LoRA weights on a Tinker service instead of the whole policy.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return LORA_LEARNING_RATE if tinker else FULL_LEARNING_RATE

    def grader_settings(self, rollout_seconds: float = 600.0) -> GraderSettings:
        """The grader's share.

        Args:
            rollout_seconds: Longest time for a group of rollouts, of which grading gets half.
        """
        return GraderSettings(
            grader=self.grader,
            temperature=self.grader_temperature,
            max_tokens=self.max_tokens,
            seconds=rollout_seconds / 2,
            base_url=self.grader_base_url,
            model=self.grader_model,
            api_key_env=self.grader_api_key_env,
        )


_HELP = {
    "model_path": "the policy: a local folder, a hub id or a model that Tinker offers",
    "max_model_len": "longest prompt and response together, in tokens",
    "max_tokens": "longest response of policy and grader, in tokens",
    "temperature": "of the policy's rollouts",
    "tensor_parallel_size": "GPUs of one rollout engine",
    "inference_engine_num": "rollout engines",
    "grader": "auxiliary: an LLM beside the policy; openai: any compatible endpoint, which frees the auxiliary GPUs; "
    "offline: rules instead of a model, for trying the pipeline out",
    "auxiliary_model_path": "the grader's model",
    "auxiliary_tensor_parallel_size": "GPUs of one grader engine",
    "auxiliary_engine_num": "grader engines",
    "grader_temperature": "of the grader",
    "grader_base_url": "of the openai grader, up to and including /v1",
    "grader_model": "name under which the openai grader's endpoint offers the model",
    "grader_api_key_env": "environment variable with the openai grader's key; must be set where Ray's workers run",
    "data": "folder with train.jsonl of script 2, or the file itself",
    "total_epochs": "passes over the data",
    "total_steps": "training steps; overrides --total_epochs",
    "train_mode": "Ra+Rs: questions and stopping; Ra: questions only; Rs: stopping only",
    "fusion_mode": "how Ra+Rs combines the scores: default gates by the decision, sum adds them up",
    "group_size": "rollouts of each task, GRPO's group",
    "learning_rate": f"of the policy (default: {FULL_LEARNING_RATE:g}; on Tinker, which trains LoRA weights, "
    f"{LORA_LEARNING_RATE:g}: they want about ten times more)",
    "batch_size": "tasks a step",
    "save_interval_steps": "steps between two checkpoints",
}
_TYPES = {"total_steps": int, "learning_rate": float}  # of the flags whose default is None
_CHOICES = {"grader": GRADERS, "train_mode": TRAIN_MODES, "fusion_mode": FUSION_MODES}


# What only --estimate reads.
_ESTIMATE_HELP = {
    "price_prefill": "USD for a million tokens of prompts",
    "price_sample": "USD for a million sampled tokens",
    "price_train": "USD for a million tokens of a training pass",
    "price_grader_prefill": "USD for a million tokens of the grader's prompts",
    "price_grader_sample": "USD for a million tokens of the grader's answers",
    "estimate_response_tokens": f"mean length of a response (default: {RESPONSE_TOKENS:g})",
    "estimate_grade_tokens": f"mean length of a grader's answer (default: {GRADE_TOKENS:g})",
}


Workflow = Callable[..., "Awaitable[WorkflowOutput]"]
Judge = Callable[..., "Awaitable[JudgeOutput]"]


def make_workflow(settings: TrainingSettings, special_tokens: tuple[str, ...] = ()) -> Workflow:
    """Makes the rollout workflow for the given settings (spec section 6).

    Args:
        settings: Picks the system prompt and the temperature.
        special_tokens: Of the policy's tokenizer, where the engine leaves them in the text (Tinker).
    """

    async def run_react_agent(
        task: dict[str, Any],
        model: "OpenAIChatModel",
        auxiliary_models: "dict[str, OpenAIChatModel]",
    ) -> "WorkflowOutput":
        """Lets a ReAct agent reply once to the task's messages."""
        from agentscope.message import Msg
        from agentscope.tuner import WorkflowOutput

        _check_auxiliary_models(auxiliary_models, settings)
        # Trinity's Tinker engine seeds every request with 42 unless it brings a seed: all rollouts of a
        # group would be one and the same, and every advantage 0.
        model.generate_kwargs = {
            **model.generate_kwargs,
            "temperature": settings.temperature,
            "seed": secrets.randbits(31),
        }
        reply = await react_reply(task["messages"], model, settings.train_mode)
        text = strip_reasoning(cut_at_special_token(reply, special_tokens))
        return WorkflowOutput(response=Msg(name=AGENT_NAME, content=text, role="assistant"))

    return run_react_agent


def make_judge(settings: TrainingSettings, rollout_seconds: float = 600.0) -> Judge:
    """Makes the judge for the given settings (spec section 6).

    Args:
        settings: Picks the grader and how its scores are fused.
        rollout_seconds: Longest time for a group of rollouts, grading included.
    """
    grader_settings = settings.grader_settings(rollout_seconds)

    async def learn2ask_judge(
        task: dict[str, Any],
        response: "Msg",
        auxiliary_models: "dict[str, OpenAIChatModel]",
    ) -> "JudgeOutput":
        """Rewards a response; asks the grader only where a question is the right thing.

        The reward of a rollout whose grading failed is NaN, see failed_rollouts.py.
        """
        from agentscope.tuner import JudgeOutput

        _check_auxiliary_models(auxiliary_models, settings)
        text = response.get_text_content() or ""
        truth: Decision = task.get("decision_truth") or "continue"
        # Each of these is only logged for the rollouts it is about, so that their mean is a share of those.
        shares = {f"stopped_when_to_{truth}": float(decision(text) == "stop")}
        scores = None
        if needs_grader(text, truth):
            messages = grading_messages(task["messages"], text, task.get("info_truth") or "")
            try:
                scores = await ask_grader(messages, auxiliary_models, grader_settings)
            except GradingError as error:
                print(f"rollout left out of the update: {error}", file=sys.stderr)
            shares["grader_failures"] = float(scores is None)
        graded = grade(text, truth, scores)
        if graded.content_score is None or graded.format_score is None:
            return JudgeOutput(reward=math.nan, metrics={"action_score": graded.action_score, **shares})
        parts = {
            "action_score": graded.action_score,
            "content_score": graded.content_score,
            "format_score": graded.format_score,
        }
        fused = reward(**parts, train_mode=settings.train_mode, fusion_mode=settings.fusion_mode)
        return JudgeOutput(reward=fused, metrics={"reward": fused, **parts, **shares})

    return learn2ask_judge


# The workflow and the judge of the default settings.
run_react_agent = make_workflow(TrainingSettings())
learn2ask_judge = make_judge(TrainingSettings())


def _check_auxiliary_models(auxiliary_models: "dict[str, OpenAIChatModel]", settings: TrainingSettings) -> None:
    """Exactly one auxiliary model, the grader, wherever an auxiliary model grades."""
    names = list(auxiliary_models or {})
    if settings.grader == "auxiliary" and names != [AUXILIARY_MODEL_NAME]:
        raise ValueError(f"exactly one auxiliary model named {AUXILIARY_MODEL_NAME!r} is needed to grade, got {names}")


def train(settings: TrainingSettings, config: RunConfig) -> int:
    """Runs the training, or goes on with it from its last checkpoint.

    Args:
        settings: The arguments of tune().
        config: Everything else.

    Returns:
        The exit code: tune() swallows the errors of its actors, so the last checkpoint is what counts.
    """
    started = time.monotonic()
    job = config.job_folder
    run_identity = identity(settings, config, train_file(settings.data))
    with only_run(job):
        check_same_run(job, run_identity)
        record(job, run_identity)
        tasks = stage_dataset(settings.data, job / "taskset")
        steps = settings.total_steps or tasks * settings.total_epochs // settings.batch_size
        reached = rewind(job, batch_size=settings.batch_size)
        if reached:
            print(f"going on from the checkpoint of step {reached} of {steps}")
            if config.tinker:
                save_sampler_weights(job, reached, config.base_url)

        def summarise() -> int:
            done = last_checkpoint(job)
            rows = [("policy", settings.model_path), ("tasks", tasks), ("steps", f"{done} of {steps}")]
            print_summary(f"trained: {job}", rows, started=started)
            return done

        if reached < steps:
            _tune(settings, config, steps, on_sigterm=lambda: _terminate(summarise))
            reached = last_checkpoint(job)
            if reached and config.tinker:
                save_sampler_weights(job, reached, config.base_url)
        summarise()
    if reached < steps:
        reason = disk_problem(job) or f"see {job / 'log'}"
        print(f"error: training stopped early; {reason} and start again to go on", file=sys.stderr)
        return EXIT_FAILURES
    return EXIT_DONE


def _terminate(summarise: Callable[[], int]) -> None:
    """Ends this process at once: who sends SIGTERM will not wait, and Ray ends the actors of a driver that is gone."""
    step = summarise()
    print(f"terminated; start again to go on from {f'step {step}' if step else 'the beginning'}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(EXIT_TERMINATED)


def _tune(settings: TrainingSettings, config: RunConfig, steps: int, *, on_sigterm: Callable[[], None]) -> None:
    """Calls tune(), which starts Ray where none runs."""
    from agentscope.tuner import AlgorithmConfig, DatasetConfig, TinkerConfig, TunerModelConfig, tune

    from tuner.learn_to_ask.trinity_actors import in_place_of_trinitys

    class EngineConfig(TunerModelConfig):  # type: ignore[misc]  # AgentScope counts as untyped here
        """Takes along what config.yaml says of an engine, for which tune() has no argument."""

        more: dict[str, Any]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), **self.more}

    EngineConfig.model_rebuild(_types_namespace={"TinkerConfig": TinkerConfig})
    policy_engine, grader_engine = config.engines
    policy = EngineConfig(
        model_path=settings.model_path,
        max_model_len=settings.max_model_len,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        tensor_parallel_size=settings.tensor_parallel_size,
        inference_engine_num=settings.inference_engine_num,
        reasoning_parser="",  # the default files all that Qwen2.5 says under reasoning and leaves no content
        more=policy_engine,
    )
    graders = {}
    if settings.grader == "auxiliary":
        graders[AUXILIARY_MODEL_NAME] = EngineConfig(
            model_path=settings.auxiliary_model_path,
            max_model_len=settings.max_model_len,
            max_tokens=settings.max_tokens,
            temperature=settings.grader_temperature,
            tensor_parallel_size=settings.auxiliary_tensor_parallel_size,
            inference_engine_num=settings.auxiliary_engine_num,
            reasoning_parser="",
            more=grader_engine,
        )
    cluster = cluster_address(config.ray_address).address
    if cluster and (stale := end_stale_actors(cluster, config.namespace)):
        print(f"ended what an earlier run of this name left on the cluster: {', '.join(stale)}")
    with tempfile.TemporaryDirectory() as folder, in_place_of_trinitys(on_sigterm):
        effective = Path(folder) / "config.yaml"
        write_effective_config(
            config,
            effective,
            ray_address=cluster or "local",
            rollouts=settings.batch_size * settings.group_size,
            flash_attention=has_flash_attention(),
        )
        tune(
            workflow_func=make_workflow(settings, _special_tokens(settings.model_path) if config.tinker else ()),
            judge_func=make_judge(settings, config.rollout_seconds),
            model=policy,
            auxiliary_models=graders,
            train_dataset=DatasetConfig(
                path=str(config.job_folder / "taskset"),
                split="train",
                total_epochs=settings.total_epochs,
                total_steps=settings.total_steps,
            ),
            algorithm=AlgorithmConfig(
                algorithm_type="grpo",
                learning_rate=settings.resolved_learning_rate(tinker=config.tinker),
                group_size=settings.group_size,
                batch_size=settings.batch_size,
                save_interval_steps=settings.save_interval_steps,
                eval_interval_steps=steps + 1,  # script 3 evaluates
            ),
            config_path=str(effective),
        )


def _special_tokens(model_path: str) -> tuple[str, ...]:
    """The special tokens of the policy's tokenizer."""
    from transformers import AutoTokenizer

    return tuple(AutoTokenizer.from_pretrained(model_path).all_special_tokens)


def main() -> int:
    """Reads flags and config file and trains."""
    parser = argparse.ArgumentParser(usage="%(prog)s [flags]", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(__file__).with_name("config.yaml"),
        help="Trinity-RFT's settings: Tinker, checkpoints, runners, weight sync, monitor; configs/ has more of them",
    )
    parser.add_argument("--check", action="store_true", help="check everything a run needs, start nothing")
    parser.add_argument("--estimate", action="store_true", help="count the tokens of the whole run, start nothing")
    for field in dataclasses.fields(TrainingSettings):
        parser.add_argument(
            f"--{field.name}",
            type=_TYPES.get(field.name, type(field.default)),
            default=field.default,
            choices=_CHOICES.get(field.name),
            help=_HELP[field.name],
        )
    group = parser.add_argument_group("only with --estimate")
    for name, text in _ESTIMATE_HELP.items():
        group.add_argument(f"--{name}", type=float, help=text)
    flags = vars(parser.parse_args())
    config_path, only_check, only_estimate = (flags.pop(name) for name in ("config", "check", "estimate"))
    assumed = {name: value for name in _ESTIMATE_HELP if (value := flags.pop(name)) is not None}
    settings, config = TrainingSettings(**flags), read_config(config_path)
    if only_estimate:
        return print_token_estimate(settings, assumed)
    for name in assumed:
        raise UserError(f"--{name}: only --estimate reads it")
    code = check(settings, config)
    if only_check or code != EXIT_DONE:
        return code
    return train(settings, config)


def check(settings: TrainingSettings, config: RunConfig) -> int:
    """Prints what a run would stumble over, all at once; every run starts with it.

    Returns:
        The exit code, 2 when a finding is fatal.
    """
    from tuner.learn_to_ask.preflight import exit_code, preflight, print_findings

    def ask_endpoint(messages: list[dict[str, str]]) -> str:
        return asyncio.run(reply_of_grader(messages, {}, settings.grader_settings()))

    findings = preflight(settings, config, ask_grader=ask_endpoint if settings.grader == "openai" else None)
    print_findings(findings)
    return exit_code(findings)


def print_token_estimate(settings: TrainingSettings, assumed: dict[str, float]) -> int:
    """Prints the tokens of the whole run, counted with the policy's tokenizer, and what they cost.

    Args:
        settings: The arguments of tune().
        assumed: The flags of the estimate that were given: prices and mean lengths.

    Returns:
        The exit code.
    """
    from transformers import AutoTokenizer

    from tuner.learn_to_ask.engines.transformers import require_model

    for name, value in assumed.items():
        if not 0 <= value < math.inf:
            raise UserError(f"--{name} {value:g}: a number of at least 0 is needed")
    file = train_file(settings.data)
    require_model(settings.model_path)
    prices = {name.removeprefix("price_"): value for name, value in assumed.items() if name.startswith("price_")}
    found = estimate(
        settings,
        file,
        AutoTokenizer.from_pretrained(settings.model_path),
        response_tokens=assumed.get("estimate_response_tokens", RESPONSE_TOKENS),
        grade_tokens=assumed.get("estimate_grade_tokens", GRADE_TOKENS),
        prices=TrainingPrices(**prices) if prices else None,
    )
    print_estimate(found)
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
