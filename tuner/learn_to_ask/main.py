"""Train a policy with GRPO: ReAct rollouts, an LLM as a judge, AgentScope's tune() on Trinity-RFT.

Examples:
  # 8 GPUs: 4 roll out, 2 grade, 2 train
  python tuner/learn_to_ask/main.py

  # no GPU: export TINKER_API_KEY, name models that Tinker offers
  python tuner/learn_to_ask/main.py --config tuner/learn_to_ask/configs/tinker.yaml \\
    --model_path Qwen/Qwen3-8B --auxiliary_model_path Qwen/Qwen3.6-35B-A3B --inference_engine_num 1

  # 2 or 4 GPUs, several nodes: each file in configs/ begins with its command

  # what a run would stumble over, and what tokens and money it takes; neither starts anything
  python tuner/learn_to_ask/main.py --check
  python tuner/learn_to_ask/main.py --estimate

  # everything on a laptop, with sample data and a tiny policy
  make quickstart
"""

import argparse
import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.agent import react_reply
from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, EXIT_TERMINATED, HelpFormatter, print_summary, run
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Decision
from tuner.learn_to_ask.core.responses import cut_at_special_token, strip_reasoning
from tuner.learn_to_ask.core.reward import decision, grade, needs_grader, reward
from tuner.learn_to_ask.domains import default_domain, load_domain
from tuner.learn_to_ask.engines.chat import Fitting, fit_messages, of_tokenizer
from tuner.learn_to_ask.engines.retrying import Usage
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.prompt import grading_messages
from tuner.learn_to_ask.ray_cluster import cluster_address, end_stale_actors
from tuner.learn_to_ask.training.config_file import RunConfig, has_flash_attention, read_config, write_effective_config
from tuner.learn_to_ask.training.dataset import stage_dataset, train_file
from tuner.learn_to_ask.training.engines import engines_of
from tuner.learn_to_ask.training.estimate import ESTIMATE_HELP, add_estimate_settings, estimate_run, print_estimate
from tuner.learn_to_ask.training.grader import AUXILIARY_MODEL_NAME, GradingError, ask_grader
from tuner.learn_to_ask.training.money import MONEY_HELP, Money, add_money_settings, money_of
from tuner.learn_to_ask.training.preflight.run import check
from tuner.learn_to_ask.training.resume import (
    check_same_run,
    disk_problem,
    identity,
    last_checkpoint,
    only_run,
    record,
    rewind,
    save_sampler_weights,
)
from tuner.learn_to_ask.training.settings import TrainingSettings, add_settings
from tuner.learn_to_ask.training.spending import (
    budget_reached,
    grader_metrics,
    print_spent,
    spent_rows,
    with_step_price,
)

if TYPE_CHECKING:
    from agentscope.message import Msg
    from agentscope.model import OpenAIChatModel
    from agentscope.tuner import JudgeOutput, WorkflowOutput

Workflow = Callable[..., "Awaitable[WorkflowOutput]"]
Judge = Callable[..., "Awaitable[JudgeOutput]"]


def make_workflow(
    settings: TrainingSettings,
    special_tokens: tuple[str, ...] = (),
    fitting: Fitting = Fitting.NONE,
    domain: Domain | None = None,
) -> Workflow:
    """Makes the rollout workflow for the given settings (spec section 6).

    Args:
        settings: Picks the system prompt and the temperature.
        special_tokens: Of the policy's tokenizer, where the engine leaves them in the text (Tinker).
        fitting: What the policy's chat template needs of a conversation.
        domain: Its texts, which travel with the workflow; the medical one where none is given.
    """
    fit = partial(fit_messages, fitting=fitting) if fitting else None

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
        reply = await react_reply(task["messages"], model, settings.train_mode, fit, domain)
        text = strip_reasoning(cut_at_special_token(reply, special_tokens))
        name = (domain or default_domain()).speakers.assistant
        return WorkflowOutput(response=Msg(name=name, content=text, role="assistant"))

    return run_react_agent


def make_judge(settings: TrainingSettings, rollout_seconds: float = 600.0, domain: Domain | None = None) -> Judge:
    """Makes the judge for the given settings (spec section 6).

    Args:
        settings: Picks the grader and how its scores are fused.
        rollout_seconds: Longest time for a group of rollouts, grading included.
        domain: As for the workflow.
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
        stop_token = (domain or default_domain()).stop_token
        # Stops and failures are only logged for the rollouts they are about, so that their mean is a share of those.
        shares = {
            f"stopped_when_to_{truth}": float(decision(text, stop_token) == "stop"),
            "said_nothing": float(not text.strip()),
        }
        scores = None
        if needs_grader(text, truth, stop_token):
            messages, usage = grading_messages(task["messages"], text, task.get("info_truth") or "", domain), Usage()
            try:
                scores = await ask_grader(messages, auxiliary_models, grader_settings, domain, usage)
            except GradingError as error:
                print(f"rollout left out of the update: {error}", file=sys.stderr)
            shares |= {"grader_failures": float(scores is None), **grader_metrics(usage)}
        graded = grade(text, truth, scores, stop_token)
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


def train(settings: TrainingSettings, config: RunConfig, money: Money) -> int:
    """Runs the training, or goes on with it from its last checkpoint.

    Args:
        settings: The arguments of tune().
        config: Everything else.
        money: Prices and budget.

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
            print_summary(f"trained: {job}", [*rows, *spent_rows(job)], started=started)
            return done

        if reached < steps:
            money = with_step_price(money, settings, config)
            _tune(settings, config, money, steps, on_sigterm=lambda: _terminate(summarise))
            reached = last_checkpoint(job)
            if reached and config.tinker:
                save_sampler_weights(job, reached, config.base_url)
        summarise()
        print_spent(money, settings, config)
    if reached < steps:
        reason = budget_reached(money, job) or disk_problem(job) or f"see {job / 'log'}"
        print(f"error: training stopped early; {reason} and start again to go on", file=sys.stderr)
        return EXIT_FAILURES
    return EXIT_DONE


def _terminate(summarise: Callable[[], int]) -> None:
    """Ends this process at once: who sends SIGTERM will not wait, and Ray ends the actors of a driver that is gone."""
    step = summarise()
    print(f"terminated; start again to go on from {f'step {step}' if step else 'the beginning'}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(EXIT_TERMINATED)


def _tune(
    settings: TrainingSettings, config: RunConfig, money: Money, steps: int, *, on_sigterm: Callable[[], None]
) -> None:
    """Calls tune(), which starts Ray where none runs."""
    from agentscope.tuner import AlgorithmConfig, DatasetConfig, tune

    from tuner.learn_to_ask.training.trinity_actors import in_place_of_trinitys

    domain = load_domain(settings.domain)
    policy, graders = engines_of(settings, config)
    cluster = cluster_address(config.ray_address).address
    if cluster and (stale := end_stale_actors(cluster, config.namespace)):
        print(f"ended what an earlier run of this name left on the cluster: {', '.join(stale)}")
    with tempfile.TemporaryDirectory() as folder, in_place_of_trinitys(on_sigterm, money):
        effective = Path(folder) / "config.yaml"
        write_effective_config(
            config,
            effective,
            ray_address=cluster or "local",
            rollouts=settings.batch_size * settings.group_size,
            flash_attention=has_flash_attention(),
        )
        tune(
            workflow_func=make_workflow(settings, *of_tokenizer(settings.model_path, tinker=config.tinker), domain),
            judge_func=make_judge(settings, config.rollout_seconds, domain),
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
    add_settings(parser)
    add_money_settings(parser)
    add_estimate_settings(parser)
    flags = vars(parser.parse_args())
    config_path, only_check, only_estimate = (flags.pop(name) for name in ("config", "check", "estimate"))
    assumed = {name: value for name in ESTIMATE_HELP if (value := flags.pop(name)) is not None}
    given = {name: flags.pop(name) for name in MONEY_HELP}
    settings, config = TrainingSettings(**flags), read_config(config_path)
    load_domain(settings.domain)  # complains before anything else is looked at
    money = money_of(settings, given, tinker=config.tinker, base_url=config.base_url)
    if only_estimate:
        print_estimate(estimate_run(settings, assumed, money.prices, tinker=config.tinker))
        return EXIT_DONE
    for name in assumed:
        raise UserError(f"--{name}: only --estimate reads it")
    code = check(settings, config)
    if only_check or code != EXIT_DONE:
        return code
    return train(settings, config, money)


if __name__ == "__main__":
    run(main)
