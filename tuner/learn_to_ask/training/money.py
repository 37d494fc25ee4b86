"""What a training run takes: its tokens, their prices, its budget, and the ledger of it in the run's folder."""

import argparse
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tuner.learn_to_ask.engines.prices import of_endpoint, tinker_prices
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.training.settings import TrainingSettings

TRAINING_PASSES = 2  # Trinity's loss on Tinker takes a forward pass, then one forward and backward
GRADER_METRICS = ("grader_prompt_tokens", "grader_answer_tokens")  # of a rollout, as the judge reports them
_PIPELINE = "experience_pipeline"  # under which Trinity logs what its operators count
_LEDGER = "spent.jsonl"
# Flags of prices, for an estimate, the costs in the log and a budget.
MONEY_HELP = {
    "price_prefill": "USD for a million tokens of prompts (default: of the package's table, for models on Tinker)",
    "price_cached_prefill": "USD for a million tokens of prompts that a service has just read (default: as above, else "
    "the price of prompts)",
    "price_sample": "USD for a million sampled tokens",
    "price_train": "USD for a million tokens of a training pass",
    "price_grader_prefill": "USD for a million tokens of the grader's prompts (default: as above; for endpoints of "
    "LiteLLM's table, where it is installed)",
    "price_grader_sample": "USD for a million tokens of the grader's answers",
    "max_usd": "stop before the run costs more, its earlier parts included; started again with a larger one it goes on",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPrices:
    """USD for a million tokens; what has no price counts as free, and the estimate says so.

    Attributes:
        prefill: Of prompts.
        cached_prefill: Of prompts that the service has just read; those of `prefill` where it is not known.
        sample: Of generated tokens.
        train: Of each training pass.
        grader_prefill: Of the grader's prompts.
        grader_sample: Of the grader's answers.
        source: Where those are from that no flag gave.
    """

    prefill: float | None = None
    cached_prefill: float | None = None
    sample: float | None = None
    train: float | None = None
    grader_prefill: float | None = None
    grader_sample: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a step, or several, took.

    Attributes:
        prompt: Read for rollouts, each of a group its own.
        repeated_prompt: Of these, those of a group after its first, which a service may still have in its cache.
        response: Sampled.
        reference: Read by the reference model, which Trinity asks about every rollout on Tinker.
        training: Of all passes of the update.
        grader_prompt: Read by the grader.
        grader_answer: Written by it.
    """

    prompt: int = 0
    repeated_prompt: int = 0
    response: int = 0
    reference: int = 0
    training: int = 0
    grader_prompt: int = 0
    grader_answer: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(**{name: count + getattr(other, name) for name, count in asdict(self).items()})

    def metrics(self) -> dict[str, float]:
        """As an operator of Trinity's pipeline reports them."""
        return {f"{name}_tokens": float(count) for name, count in asdict(self).items()}

    @classmethod
    def of_metrics(cls, logged: Mapping[str, float]) -> "Tokens | None":
        """What the operator has counted, out of what Trinity logs for a step; `None` when it is not there."""
        names = {field.name: f"{_PIPELINE}/{field.name}_tokens" for field in fields(cls)}
        if not all(key in logged for key in names.values()):
            return None
        return cls(**{name: round(logged[key]) for name, key in names.items()})

    def usd(self, prices: TrainingPrices, *, cached: bool = False) -> dict[str, float]:
        """What they cost: sampling, training and grading.

        Args:
            prices: Of the run.
            cached: Whether the prompts of a group after its first are charged as cached.
        """

        def cost(tokens: int, price: float | None) -> float:
            return tokens * (price or 0.0) / 1e6

        again = prices.cached_prefill if cached and prices.cached_prefill is not None else prices.prefill
        return {
            "sampling": cost(self.prompt - self.repeated_prompt, prices.prefill)
            + cost(self.repeated_prompt, again)
            + cost(self.response, prices.sample),
            "training": cost(self.training, prices.train) + cost(self.reference, prices.prefill),
            "grading": cost(self.grader_prompt, prices.grader_prefill) + cost(self.grader_answer, prices.grader_sample),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Prices and budget of a run.

    Attributes:
        prices: Of its tokens.
        max_usd: The most that the run may cost in all its parts, `None` for no limit.
        usd_a_step: What a step costs by the estimate, until one has been counted.
    """

    prices: TrainingPrices = TrainingPrices()
    max_usd: float | None = None
    usd_a_step: float = 0.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What the ledger of a run holds.

    Attributes:
        steps: How many were rolled out, those again that were lost in a kill.
        tokens: Of all of them.
        usd: At the prices of their time, no prompt cached.
    """

    steps: int = 0
    tokens: Tokens = Tokens()
    usd: float = 0.0


def note_step(job_folder: Path, step: int, tokens: Tokens, usd: float) -> None:
    """Adds a step to the ledger; from here on it survives the process."""
    with (job_folder / _LEDGER).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "usd": usd, "tokens": asdict(tokens)}) + "\n")


def read_spent(job_folder: Path) -> Spent:
    """The whole ledger; a line that a crash cut off does not count."""
    file = job_folder / _LEDGER
    steps, tokens, usd = 0, Tokens(), 0.0
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        steps, tokens, usd = steps + 1, tokens + Tokens(**entry["tokens"]), usd + entry["usd"]
    return Spent(steps, tokens, usd)


def could_exceed(money: Money, spent: Spent, *, steps: int) -> bool:
    """Whether so many steps more could cost more than the budget, by the average of those that were counted.

    Args:
        money: With the budget.
        spent: So far.
        steps: Under way and the next one.
    """
    if money.max_usd is None:
        return False
    each = spent.usd / spent.steps if spent.steps else money.usd_a_step
    return spent.usd + steps * each > money.max_usd or spent.usd >= money.max_usd


def money_of(
    settings: TrainingSettings, given: Mapping[str, float | None], *, tinker: bool, base_url: str | None
) -> Money:
    """Prices and budget by the flags, and the tables for what they leave open.

    Args:
        settings: Whose models have prices.
        given: The flags of `MONEY_HELP`.
        tinker: Whether a Tinker service rolls out and trains.
        base_url: Of that service, `None` for the hosted one, whose prices the table has.

    Raises:
        UserError: When a flag is no such number, or a budget lacks a price.
    """
    for name, value in given.items():
        if value is not None and not (0 <= value < math.inf):
            raise UserError(f"--{name} {value:g}: a number of at least 0 is needed")
    max_usd = given.get("max_usd")
    if max_usd == 0:
        raise UserError("--max_usd 0: a number above 0 is needed")
    hosted = tinker and not (base_url or os.environ.get("TINKER_BASE_URL"))
    known, source = _of_tables(settings, hosted=hosted)
    prices = known | {name.removeprefix("price_"): value for name, value in given.items() if value is not None}
    prices.pop("max_usd", None)
    if max_usd is not None:
        needed = ["prefill", "sample", "train"] if tinker else []
        if settings.grader == "openai" or (tinker and settings.grader == "auxiliary"):
            needed += ["grader_prefill", "grader_sample"]
        if not needed:
            raise UserError("--max_usd: nothing in this run has a price; leave it out")
        if missing := [f"--price_{name}" for name in needed if name not in prices]:
            raise UserError(f"--max_usd: the tables lack prices; pass {', '.join(missing)}, USD for a million tokens")
    return Money(prices=TrainingPrices(**prices, source=source), max_usd=max_usd)


def _of_tables(settings: TrainingSettings, *, hosted: bool) -> tuple[dict[str, float], str]:
    """The prices that the tables know, and which tables those are.

    Args:
        settings: With the models.
        hosted: Whether the policy is on the hosted Tinker service.
    """
    prices: dict[str, float | None] = {}
    sources = []
    policy = tinker_prices().get(settings.model_path) if hosted else None
    if policy:
        prices |= {name: getattr(policy, name) for name in ("prefill", "cached_prefill", "sample", "train")}
        sources.append(f"{settings.model_path}: {policy.said}")
    grader = tinker_prices().get(settings.auxiliary_model_path) if hosted and settings.grader == "auxiliary" else None
    if grader:
        prices |= {"grader_prefill": grader.prefill, "grader_sample": grader.sample}
        sources.append(f"{settings.auxiliary_model_path}: {grader.said}")
    endpoint = of_endpoint(settings.grader_base_url, settings.grader_model) if settings.grader == "openai" else None
    if endpoint:
        prices |= {"grader_prefill": endpoint.tokens_in, "grader_sample": endpoint.tokens_out}
        sources.append(f"{settings.grader_model}: {endpoint.source}")
    return {name: price for name, price in prices.items() if price is not None}, "; ".join(sources)


def add_money_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of prices and the budget."""
    group = parser.add_argument_group("money")
    for name, text in MONEY_HELP.items():
        group.add_argument(f"--{name}", type=float, help=text)
