"""Command-line flags of an engine, and the engine they name."""

import argparse
import sys
from collections.abc import Callable

from tuner.learn_to_ask.engines.base import Engine
from tuner.learn_to_ask.engines.retrying import Prices
from tuner.learn_to_ask.errors import UserError

ENGINES = ("auto", "vllm", "openai", "transformers", "tinker", "offline")

_FLAGS = (
    "engine",
    "base_url",
    "model",
    "api_key_env",
    "concurrency",
    "connect_timeout",
    "read_timeout",
    "request_retries",
    "extra_body",
    "tensor_parallel_size",
    "max_model_len",
    "gpu_memory_utilization",
    "dtype",
    "batch_size",
)


def add_engine_arguments(parser: argparse.ArgumentParser, *, part: str, prefix: str, offline: bool) -> None:
    """Adds the flags that choose and tune one engine.

    Args:
        parser: Gets the flags.
        part: What the engine plays: extractor, policy or grader.
        prefix: `""`, `"eval_"` or `"grader_"`.
        offline: Whether the offline stand-in can play this part.
    """
    group = parser.add_argument_group(f"engine of the {part}")
    add = group.add_argument
    add(
        f"--{prefix}engine",
        choices=[name for name in ENGINES if offline or name != "offline"],
        default="auto",
        help=f"auto: openai with --{prefix}base_url, tinker for a tinker:// path, vllm where it is installed, else "
        "transformers" + ("; offline: rules instead of a model, for trying the pipeline out" if offline else ""),
    )
    add(f"--{prefix}price_in", type=float, help="of a million prompt tokens, for the cost in the summary")
    add(f"--{prefix}price_out", type=float, help="of a million answer tokens, for the cost in the summary")
    add(f"--{prefix}base_url", help="openai: the server, up to and including /v1")
    add(f"--{prefix}model", help="openai: the name under which the server offers the model")
    add(f"--{prefix}api_key_env", default="OPENAI_API_KEY", help="openai: the environment variable with the key")
    add(f"--{prefix}concurrency", type=positive_int, default=32, help="openai: requests under way at once")
    add(f"--{prefix}connect_timeout", type=float, default=10.0, help="openai: seconds for a connection")
    add(f"--{prefix}read_timeout", type=float, default=600.0, help="openai: seconds for a whole answer")
    add(
        f"--{prefix}request_retries",
        type=natural_int,
        default=8,
        help="openai: tries after trouble with network or server",
    )
    add(
        f"--{prefix}extra_body",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="openai: send repetition_penalty and switch thinking off, which vLLM knows and plain OpenAI refuses",
    )
    add(
        f"--{prefix}tensor_parallel_size",
        type=positive_int,
        help="vllm: GPUs to spread the model over; default: as many visible ones as its heads divide by",
    )
    add(f"--{prefix}max_model_len", type=positive_int, help="vllm: longest prompt and answer; default: the model's")
    add(f"--{prefix}gpu_memory_utilization", type=float, default=0.9, help="vllm: share of each GPU's memory")
    add(f"--{prefix}dtype", default="auto", help="vllm: number format of weights and activations")
    add(f"--{prefix}batch_size", type=positive_int, default=16, help="transformers: conversations at a time")


def build_engine(
    arguments: argparse.Namespace,
    *,
    prefix: str,
    model_path: str | None,
    model_flag: str,
    offline_answer: Callable[[list[dict[str, str]]], str] | None = None,
) -> Engine:
    """Makes the engine that the flags name; the heavy imports happen here.

    Args:
        arguments: The parsed flags of `add_engine_arguments`, and `seed`.
        prefix: As given to `add_engine_arguments`.
        model_path: The model; not needed by `openai` and `offline`.
        model_flag: The flag that names it, for error messages.
        offline_answer: The rule that stands in for the model.

    Raises:
        UserError: When a flag is missing or the model cannot be used.
    """
    flags = {name: getattr(arguments, f"{prefix}{name}") for name in _FLAGS}
    name, reason = _engine_name(arguments, prefix=prefix, model_path=model_path, model_flag=model_flag)
    if reason:
        print(f"--{prefix}engine auto: {name}, because {reason}", file=sys.stderr)
    if name == "offline" and offline_answer:
        from tuner.learn_to_ask.engines.offline import OfflineEngine

        return OfflineEngine(offline_answer)
    if name == "openai":
        from tuner.learn_to_ask.engines.openai_api import OpenAIEngine

        return OpenAIEngine(
            base_url=flags["base_url"],
            model=flags["model"],
            api_key_env=flags["api_key_env"],
            concurrency=flags["concurrency"],
            connect_timeout=flags["connect_timeout"],
            read_timeout=flags["read_timeout"],
            max_retries=flags["request_retries"],
            extra_body=flags["extra_body"],
        )
    assert model_path  # _engine_name has seen to it
    if name == "vllm":
        from tuner.learn_to_ask.engines.vllm import VLLMEngine

        return VLLMEngine(
            model_path,
            seed=arguments.seed,
            tensor_parallel_size=flags["tensor_parallel_size"],
            max_model_len=flags["max_model_len"],
            gpu_memory_utilization=flags["gpu_memory_utilization"],
            dtype=flags["dtype"],
        )
    if name == "transformers":
        from tuner.learn_to_ask.engines.transformers import TransformersEngine

        return TransformersEngine(model_path, batch_size=flags["batch_size"], seed=arguments.seed)
    from tuner.learn_to_ask.engines.tinker import TinkerEngine

    return TinkerEngine(model_path, seed=arguments.seed)


def prices(arguments: argparse.Namespace, *, prefix: str) -> Prices | None:
    """The prices that the flags give, `None` without any."""
    tokens_in, tokens_out = (getattr(arguments, f"{prefix}price_{way}") for way in ("in", "out"))
    return None if tokens_in is None and tokens_out is None else Prices(tokens_in or 0.0, tokens_out or 0.0)


def check_engine(arguments: argparse.Namespace, *, prefix: str, model_path: str | None, model_flag: str) -> None:
    """Checks the flags of an engine that is only built later, after something long.

    Raises:
        UserError: When a flag is missing.
    """
    _engine_name(arguments, prefix=prefix, model_path=model_path, model_flag=model_flag)


def _engine_name(
    arguments: argparse.Namespace, *, prefix: str, model_path: str | None, model_flag: str
) -> tuple[str, str]:
    """The engine that the flags mean, and why when it was not named; complains about missing flags."""
    name, reason = getattr(arguments, f"{prefix}engine"), ""
    if name == "auto":
        name, reason = _choose(
            model_path, getattr(arguments, f"{prefix}base_url"), prefix=prefix, model_flag=model_flag
        )
    if name == "openai":
        for needed in ("base_url", "model"):
            if not getattr(arguments, f"{prefix}{needed}"):
                raise UserError(f"--{prefix}{needed}: the openai engine needs it")
    elif name != "offline" and not model_path:
        raise UserError(f"{model_flag}: the {name} engine needs a model")
    return name, reason


def _choose(model_path: str | None, base_url: str | None, *, prefix: str, model_flag: str) -> tuple[str, str]:
    """The engine that fits the model, and why."""
    from tuner.learn_to_ask.engines.vllm import installed

    if base_url:
        return "openai", f"--{prefix}base_url names a server"
    if not model_path:
        raise UserError(f"{model_flag} or --{prefix}base_url: name a model, or choose another --{prefix}engine")
    if model_path.startswith("tinker://"):
        return "tinker", f"{model_flag} is a tinker:// path"
    if installed():
        return "vllm", "it is installed"
    return "transformers", "vLLM is not installed"


def natural_int(text: str) -> int:
    """An argparse type for whole numbers from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return value


def positive_int(text: str) -> int:
    """An argparse type for whole numbers from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value
