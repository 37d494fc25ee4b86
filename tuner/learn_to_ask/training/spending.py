"""What main.py does about money around a run: a budget that reaches for a step, and what came of it."""

import sys
from dataclasses import replace
from pathlib import Path

from tuner.learn_to_ask.engines.retrying import Usage
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.config_file import RunConfig
from tuner.learn_to_ask.training.estimate import Estimate, beside_forecast, estimate_run
from tuner.learn_to_ask.training.money import GRADER_METRICS, Money, could_exceed, read_spent
from tuner.learn_to_ask.training.settings import TrainingSettings


def with_step_price(money: Money, settings: TrainingSettings, config: RunConfig) -> Money:
    """The money of a run that has a budget, with what a step costs by the estimate.

    Raises:
        UserError: When the budget does not reach for one step more.
    """
    if money.max_usd is None:
        return money
    found = _forecast(money, settings, config)
    money = replace(money, usd_a_step=(found.most_usd or 0.0) / found.steps)
    if reached := budget_reached(money, config.job_folder):
        raise UserError(f"{reached} to train a step more")
    return money


def budget_reached(money: Money, job_folder: Path) -> str:
    """Why a run cannot go on with its budget, `""` when it can."""
    spent = read_spent(job_folder)
    if not could_exceed(money, spent, steps=1):
        return ""
    each = spent.usd / spent.steps if spent.steps else money.usd_a_step
    so_far = f"{spent.usd:.4f} USD are spent in {spent.steps} steps and " if spent.steps else ""
    how = "so far" if spent.steps else "by the estimate"
    return f"--max_usd {money.max_usd:g}: {so_far}a step takes about {each:.4f} {how}; raise it"


def spent_rows(job_folder: Path) -> list[tuple[str, object]]:
    """Label and value of what a run has spent, for its summary."""
    spent = read_spent(job_folder)
    return [("spent", f"{spent.usd:.4f} USD in {spent.steps} steps, no prompt cached")] if spent.usd else []


def print_spent(money: Money, settings: TrainingSettings, config: RunConfig) -> None:
    """Prints what a run took beside what the estimate had said; nothing when no step was counted."""
    spent = read_spent(config.job_folder)
    if not spent.steps:
        return
    try:
        print(beside_forecast(spent, money.prices, _forecast(money, settings, config)))
    except (UserError, OSError, ValueError) as error:  # of the tokenizer: no reason to fail at the end of a run
        print(f"no estimate to compare with: {error}", file=sys.stderr)


def grader_metrics(usage: Usage) -> dict[str, float]:
    """What the grader took for a rollout, as its metrics."""
    return dict(zip(GRADER_METRICS, (float(usage.prompt_tokens), float(usage.completion_tokens)), strict=True))


def _forecast(money: Money, settings: TrainingSettings, config: RunConfig) -> Estimate:
    """The estimate of the whole run."""
    return estimate_run(settings, {}, money.prices, tinker=config.tinker)
