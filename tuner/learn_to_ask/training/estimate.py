"""How many tokens a training run takes, and what they cost, before it starts."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tuner.learn_to_ask.core.records import Task
from tuner.learn_to_ask.domains import load_domain
from tuner.learn_to_ask.engines.chat import ChatEncoder
from tuner.learn_to_ask.engines.transformers import require_model
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import grading_messages, rollout_messages
from tuner.learn_to_ask.training.dataset import train_file
from tuner.learn_to_ask.training.money import TRAINING_PASSES, Spent, Tokens, TrainingPrices
from tuner.learn_to_ask.training.settings import TrainingSettings

# The published run on Tinker; its bill is at the prices of its time, when Qwen3-8B was 0.13 / 0.40 / 0.40.
PUBLISHED_TOKENS = 112_000_000
PUBLISHED_USD = 18.0
PUBLISHED_EPOCHS = 4

RESPONSE_TOKENS = 40.0  # one sentence with one question and two or three answer choices
GRADE_TOKENS = 120.0  # a few sentences of reasoning and two scores

# What only --estimate reads.
ESTIMATE_HELP = {
    "estimate_response_tokens": f"mean length of a response (default: {RESPONSE_TOKENS:g})",
    "estimate_grade_tokens": f"mean length of a grader's answer (default: {GRADE_TOKENS:g})",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a whole run takes.

    Attributes:
        tasks: In the training set.
        steps: Of training.
        epochs: Passes over the data that the steps make.
        sequences: Rollouts.
        graded: Rollouts that a grader sees.
        prompt_tokens: Of all rollouts; each of a group reads its own prompt.
        repeated_prompt_tokens: Of these, those of a group after its first, which a service may still have in its cache.
        response_tokens: Of all rollouts.
        grading_prompt_tokens: What the grader reads.
        grading_answer_tokens: What the grader writes.
        sequence_tokens: Prompt and response of every rollout once: what is trained on.
        training_passes: How often each of them goes through the model for an update.
        reference: Whether the reference model reads each of them once more.
        prices: `None` when no price is known.
    """

    tasks: int
    steps: int
    epochs: float
    sequences: int
    graded: int
    prompt_tokens: int
    response_tokens: int
    grading_prompt_tokens: int
    grading_answer_tokens: int
    sequence_tokens: int
    training_passes: int
    prices: TrainingPrices | None = None
    repeated_prompt_tokens: int = 0
    reference: bool = False

    @property
    def tokens(self) -> Tokens:
        """All of them by what they are for."""
        return Tokens(
            prompt=self.prompt_tokens,
            repeated_prompt=self.repeated_prompt_tokens,
            response=self.response_tokens,
            reference=self.sequence_tokens if self.reference else 0,
            training=self.training_tokens,
            grader_prompt=self.grading_prompt_tokens,
            grader_answer=self.grading_answer_tokens,
        )

    @property
    def training_tokens(self) -> int:
        """All passes of the updates."""
        return self.sequence_tokens * self.training_passes

    @property
    def grading_tokens(self) -> int:
        """What the grader reads and writes."""
        return self.grading_prompt_tokens + self.grading_answer_tokens

    @property
    def usd(self) -> float | None:
        """The bill with the repeated prompts of each group charged as cached, `None` without prices."""
        return None if self.prices is None else sum(self.tokens.usd(self.prices, cached=True).values())

    @property
    def most_usd(self) -> float | None:
        """The bill when no prompt is found in a cache, `None` without prices."""
        return None if self.prices is None else sum(self.tokens.usd(self.prices).values())

    @property
    def unpriced(self) -> list[str]:
        """The prices that are missing in the bill."""
        return [name for name, tokens in self._priced.items() if tokens and getattr(self.prices, name, None) is None]

    @property
    def _priced(self) -> dict[str, int]:
        """The tokens that each price is for."""
        return {
            "prefill": self.prompt_tokens + self.tokens.reference,
            "sample": self.response_tokens,
            "train": self.training_tokens,
            "grader_prefill": self.grading_prompt_tokens,
            "grader_sample": self.grading_answer_tokens,
        }


def estimate(
    settings: TrainingSettings,
    tasks_file: Path,
    encoder: ChatEncoder,
    *,
    response_tokens: float = RESPONSE_TOKENS,
    grade_tokens: float = GRADE_TOKENS,
    training_passes: int = TRAINING_PASSES,
    reference: bool = False,
    prices: TrainingPrices | None = None,
) -> Estimate:
    """Counts the tokens of a whole run.

    Prompts are counted, responses and grades are assumed. Every rollout of a `continue` task counts as
    graded, which is an upper bound: a rollout that stops there is not. The grader's prompts are counted
    with the policy's tokenizer.

    Args:
        settings: Steps, groups and prompts.
        tasks_file: The train split.
        encoder: Of the policy.
        response_tokens: Mean length of a response.
        grade_tokens: Mean length of a grade.
        training_passes: Passes over each rollout for an update.
        reference: Whether the reference model reads each rollout once more.
        prices: For an estimate in money.

    Raises:
        UserError: When the tasks do not fill one batch.
    """
    domain = load_domain(settings.domain)
    tasks = prompt = graded = grading_prompt = 0
    for task in read_jsonl(tasks_file, Task, unique_key="cid", report=ReadReport(), quiet=True):
        tasks += 1
        prompt += _count(encoder, rollout_messages(task.messages, settings.train_mode, domain))
        if task.decision_truth == "continue" and settings.grader != "offline":
            graded += 1
            grading_prompt += _count(encoder, grading_messages(task.messages, "", task.info_truth, domain))
    steps = settings.total_steps or tasks * settings.total_epochs // settings.batch_size
    if not tasks or not steps:
        raise UserError(f"--data {tasks_file}: {tasks} tasks do not fill one batch of {settings.batch_size}")
    epochs = steps * settings.batch_size / tasks
    rollouts = epochs * settings.group_size  # of each task
    sequences = steps * settings.batch_size * settings.group_size
    responses = round(sequences * response_tokens)
    prompts = round(prompt * rollouts)
    return Estimate(
        tasks=tasks,
        steps=steps,
        epochs=epochs,
        sequences=sequences,
        graded=round(graded * rollouts),
        prompt_tokens=prompts,
        response_tokens=responses,
        grading_prompt_tokens=round((grading_prompt + graded * response_tokens) * rollouts),
        grading_answer_tokens=round(graded * rollouts * grade_tokens),
        sequence_tokens=prompts + responses,
        training_passes=training_passes,
        prices=prices,
        repeated_prompt_tokens=round(prompt * epochs * (settings.group_size - 1)),
        reference=reference,
    )


def _count(encoder: ChatEncoder, messages: list[dict[str, str]]) -> int:
    """Tokens of a chat as the model reads it."""
    return len(encoder.encode(messages)[0])


def calibration(found: Estimate) -> str:
    """Compares an estimate, scaled to the published number of epochs, with the published figure.

    It is not published what the 112 million tokens count, so each reading is listed with its share.
    """
    scale = PUBLISHED_EPOCHS / found.epochs
    readings = {
        "rollouts alone (prompts and responses)": found.sequence_tokens,
        "rollouts and grading": found.sequence_tokens + found.grading_tokens,
        f"rollouts and training in {found.training_passes} passes": found.sequence_tokens + found.training_tokens,
        "all of it": found.sequence_tokens + found.training_tokens + found.grading_tokens,
    }
    shares = {name: tokens * scale / PUBLISHED_TOKENS for name, tokens in readings.items()}
    nearest = min(shares, key=lambda name: abs(shares[name] - 1))
    lines = [
        f"published: {_millions(PUBLISHED_TOKENS)} tokens, {PUBLISHED_USD:.0f} USD for {PUBLISHED_EPOCHS} epochs, "
        f"{PUBLISHED_USD / PUBLISHED_TOKENS * 1e6:.2f} USD a million; what was counted is not said",
        f"this estimate scaled to {PUBLISHED_EPOCHS} epochs:",
        *(f"  {shares[name]:>7.1%}  {_millions(readings[name] * scale)}  {name}" for name in readings),
        f"nearest: {nearest}, {shares[nearest]:.1%} of the published tokens",
        f"assumes that the published run had these {found.tasks} tasks and this group size, "
        f"{_mean(found.response_tokens, found.sequences)} tokens a response",
        f"and, where grading counts, a grade of {_mean(found.grading_answer_tokens, found.graded)} tokens for every "
        "rollout of a continue task",
    ]
    if found.usd is not None:
        said = f"{found.usd * scale:.2f} USD for {PUBLISHED_EPOCHS} epochs by the prices given"
        lines.append(f"{said}: {found.usd * scale / PUBLISHED_USD:.1%} of the published bill")
    return "\n".join(lines)


def print_estimate(found: Estimate) -> None:
    """Prints the estimate and its calibration on one screen."""
    rows: list[tuple[str, str]] = [
        ("tasks", f"{found.tasks}"),
        ("steps", f"{found.steps} ({found.epochs:.2f} epochs)"),
        ("rollouts", f"{found.sequences}, {found.graded} of them graded at most"),
        ("prompt tokens", _millions(found.prompt_tokens)),
        ("response tokens", f"{_millions(found.response_tokens)} (assumed, not counted)"),
        ("grading prompt tokens", _millions(found.grading_prompt_tokens)),
        ("grading answer tokens", f"{_millions(found.grading_answer_tokens)} (assumed, not counted)"),
        ("trained tokens", f"{_millions(found.sequence_tokens)} (prompt and response of every rollout)"),
        ("training tokens", f"{_millions(found.training_tokens)} ({found.training_passes} passes)"),
        *(
            [("reference tokens", f"{_millions(found.sequence_tokens)} (each rollout read once more)")]
            * found.reference
        ),
        ("cost", _cost(found)),
        *([("prices", found.prices.source)] if found.prices and found.prices.source else []),
    ]
    print("estimate of the whole run")
    for label, value in rows:
        print(f"  {label:<22}{value}")
    print(calibration(found))


def _cost(found: Estimate) -> str:
    """The bill for reading, with what it leaves out."""
    if found.usd is None or found.most_usd is None:
        return "unknown: no prices given, and the tables lack these models"
    left_out = ", ".join(f"--price_{name}" for name in found.unpriced)
    most = f" ({found.most_usd:.2f} if no prompt is found in a cache)" if found.most_usd > found.usd else ""
    return f"{found.usd:.2f} USD{most}" + (f", without what {left_out} would add" if left_out else "")


def _mean(tokens: int, count: int) -> str:
    """Tokens of one, for reading."""
    return f"{tokens / count:.0f}" if count else "0"


def _millions(tokens: float) -> str:
    """Tokens for reading."""
    return f"{tokens / 1e6:.2f} M"


def add_estimate_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that only `--estimate` reads."""
    group = parser.add_argument_group("only with --estimate")
    for name, text in ESTIMATE_HELP.items():
        group.add_argument(f"--{name}", type=float, help=text)


def estimate_run(
    settings: TrainingSettings, assumed: Mapping[str, float], prices: TrainingPrices, *, tinker: bool
) -> Estimate:
    """Estimates a run from its flags, counted with the policy's tokenizer, and what it costs.

    Args:
        settings: The arguments of tune().
        assumed: The flags of the estimate that were given: mean lengths.
        prices: Of the run.
        tinker: Whether a Tinker service trains, where Trinity also asks a reference model about every rollout.

    Raises:
        UserError: When a flag is no such number, or data or model are missing.
    """
    from transformers import AutoTokenizer

    for name, value in assumed.items():
        if not 0 <= value < math.inf:
            raise UserError(f"--{name} {value:g}: a number of at least 0 is needed")
    file = train_file(settings.data)
    require_model(settings.model_path)
    return estimate(
        settings,
        file,
        ChatEncoder(AutoTokenizer.from_pretrained(settings.model_path), settings.model_path),
        response_tokens=assumed.get("estimate_response_tokens", RESPONSE_TOKENS),
        grade_tokens=assumed.get("estimate_grade_tokens", GRADE_TOKENS),
        reference=tinker,
        prices=prices if prices != TrainingPrices() else None,
    )


def beside_forecast(spent: Spent, prices: TrainingPrices, forecast: Estimate) -> str:
    """What a run took beside what the estimate had said for as many steps.

    Args:
        spent: Of the ledger.
        prices: Of the run.
        forecast: Of the whole run.
    """
    share = spent.steps / forecast.steps
    rows = [("", f"{spent.steps} steps", "estimate")]
    for name, count in asdict(forecast.tokens).items():
        actual = getattr(spent.tokens, name)
        if count or actual:
            rows.append((f"{name.replace('_', ' ')} tokens", f"{actual:,}", f"{count * share:,.0f}"))
    if forecast.usd is not None and forecast.most_usd is not None:
        cached = sum(spent.tokens.usd(prices, cached=True).values())
        rows.append(("USD, no prompt cached", f"{spent.usd:.4f}", f"{forecast.most_usd * share:.4f}"))
        rows.append(("USD, a group's prompt cached", f"{cached:.4f}", f"{forecast.usd * share:.4f}"))
    return "\n".join(f"  {label:<30}{actual:>14}{expected:>14}" for label, actual, expected in rows)
