"""Command-line flags of a run's budget, and the prices by which it is kept."""

import argparse
import math

from tuner.learn_to_ask.engines.budget import Budget
from tuner.learn_to_ask.engines.prices import Prices, of_endpoint, of_tinker
from tuner.learn_to_ask.errors import UserError


def add_budget_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two flags of a budget."""
    group = parser.add_argument_group("budget of this run, all its engines together; --resume begins with a new one")
    group.add_argument(
        "--max_usd",
        type=float,
        help="stop before more could be spent; needs prices: of the package's table for Tinker, of LiteLLM's for "
        "endpoints where it is installed, or --price_in and --price_out of each engine",
    )
    group.add_argument("--max_tokens_total", type=int, help="stop before prompts and answers together could be more")


def budget_of(arguments: argparse.Namespace) -> Budget | None:
    """The budget that the flags give, `None` without any.

    Raises:
        UserError: When it is none.
    """
    max_usd, max_tokens = arguments.max_usd, arguments.max_tokens_total
    if max_usd is not None and not 0 < max_usd < math.inf:
        raise UserError(f"--max_usd {max_usd:g}: a number above 0 is needed")
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"--max_tokens_total {max_tokens}: a whole number from 1 is needed")
    if max_usd is None and max_tokens is None:
        return None
    return Budget(max_usd=max_usd, max_tokens=max_tokens)


def prices_of(
    arguments: argparse.Namespace, *, prefix: str, model_path: str | None, required_by: str = ""
) -> Prices | None:
    """What an engine's tokens cost: by its flags, else by the tables; `None` where neither says.

    Args:
        arguments: The parsed flags of `add_engine_arguments`.
        prefix: As given to it.
        model_path: The model, where the engine is no endpoint.
        required_by: A flag that cannot do without.

    Raises:
        UserError: When a required price is in none of them.
    """
    engine, base_url = getattr(arguments, f"{prefix}engine"), getattr(arguments, f"{prefix}base_url")
    flags = [f"{prefix}price_in", f"{prefix}price_out"]
    given = [getattr(arguments, flag) for flag in flags]
    model, known = model_path, None
    if engine == "openai" or (engine == "auto" and base_url):
        model = getattr(arguments, f"{prefix}model")
        known = of_endpoint(" ".join(base_url or ()), model or "")
    elif engine == "tinker":
        known = of_tinker(model_path or "")
    if required_by and known is None and None in given:
        missing = " and ".join(f"--{flag}" for flag, price in zip(flags, given, strict=True) if price is None)
        raise UserError(
            f"{required_by}: the tables do not say what {model} costs there; pass {missing}, USD for a million tokens"
        )
    if given == [None, None]:
        return known
    other = known or Prices(0.0, 0.0)
    tokens_in, tokens_out = given
    return Prices(
        other.tokens_in if tokens_in is None else tokens_in, other.tokens_out if tokens_out is None else tokens_out
    )
