"""Command-line flags of an engine, and the engine they name."""

import argparse
from collections.abc import Callable

from tuner.learn_to_ask.engines.base import Engine
from tuner.learn_to_ask.errors import UserError

ENGINES = ("transformers", "tinker", "offline")


def add_engine_arguments(parser: argparse.ArgumentParser, *, prefix: str, default: str, offline: bool) -> None:
    """Adds `--{prefix}engine` and what tunes it.

    Args:
        parser: Gets the flags.
        prefix: `""`, `"eval_"` or `"grader_"`.
        default: The default engine.
        offline: Whether the offline stand-in can play this part.
    """
    choices = [name for name in ENGINES if offline or name != "offline"]
    parser.add_argument(
        f"--{prefix}engine",
        choices=choices,
        default=default,
        help="transformers: a local or hub model; tinker: a Tinker service"
        + ("; offline: rules instead of a model, for trying the pipeline out" if offline else ""),
    )
    parser.add_argument(
        f"--{prefix}batch_size", type=positive_int, default=16, help="conversations at a time (transformers engine)"
    )


def build_engine(
    name: str,
    *,
    model_path: str | None,
    model_flag: str,
    batch_size: int,
    seed: int,
    offline_answer: Callable[[list[dict[str, str]]], str] | None = None,
) -> Engine:
    """Makes the engine that the flags name; the heavy imports happen here.

    Args:
        name: One of `ENGINES`.
        model_path: The model; not needed by `offline`.
        model_flag: The flag that names the model, for the error message.
        batch_size: Conversations at a time, for engines with batches.
        seed: First seed.
        offline_answer: The rule that stands in for the model.

    Raises:
        UserError: When the model is missing or cannot be used.
    """
    if name == "offline":
        from tuner.learn_to_ask.engines.offline import OfflineEngine

        if offline_answer is None:
            raise UserError(f"the offline engine cannot stand in for {model_flag}")
        return OfflineEngine(offline_answer)
    if not model_path:
        raise UserError(f"{model_flag}: the {name} engine needs a model")
    if name == "transformers":
        from tuner.learn_to_ask.engines.transformers import TransformersEngine

        return TransformersEngine(model_path, batch_size=batch_size, seed=seed)
    from tuner.learn_to_ask.engines.tinker import TinkerEngine

    return TinkerEngine(model_path, seed=seed)


def positive_int(text: str) -> int:
    """An argparse type for whole numbers from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value
