"""Command-line flags of an engine, and the engine they name."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from tuner.learn_to_ask.engines.base import Engine
from tuner.learn_to_ask.engines.budget import Budget, Meter
from tuner.learn_to_ask.engines.budget_flags import prices_of
from tuner.learn_to_ask.engines.choice import choose_engine
from tuner.learn_to_ask.engines.job import JobSettings
from tuner.learn_to_ask.engines.replicas.plan import ReplicaFlags, replicas_count
from tuner.learn_to_ask.models.model_source import ModelSource

ENGINES = ("auto", "vllm", "openai", "transformers", "tinker", "offline")

LOCAL_ENGINES = frozenset({"vllm", "transformers"})  # hold their model in this machine's memory

_FLAGS = (
    "engine",
    "base_url",
    "model",
    "api_key_env",
    "api_key_header",
    "concurrency",
    "connect_timeout",
    "read_timeout",
    "request_retries",
    "extra_body",
    "extra_json",
    "stream",
    "trust_remote_code",
    "replicas",
    "tensor_parallel_size",
    "max_model_len",
    "gpu_memory_utilization",
    "dtype",
    "batch_size",
)

_VLLM_OPTIONS = ("tensor_parallel_size", "max_model_len", "gpu_memory_utilization", "dtype", "trust_remote_code")


def add_engine_arguments(parser: argparse.ArgumentParser, *, part: str, prefix: str, offline: bool) -> None:
    """Adds the flags that choose and tune one engine; long, because there are many.

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
    add(f"--{prefix}base_url", nargs="+", action="extend", help="openai: server or servers, up to and including /v1")
    add(f"--{prefix}model", help="openai: the name under which the server offers the model")
    add(f"--{prefix}api_key_env", default="OPENAI_API_KEY", help="openai: the environment variable with the key")
    add(
        f"--{prefix}api_key_header",
        default="",
        help="openai: the header that carries the key, such as api-key (default: Authorization; at Azure its own)",
    )
    add(f"--{prefix}concurrency", type=positive_int, default=32, help="openai: requests at once at each server")
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
        f"--{prefix}extra_json",
        default="",
        help="openai: fields to add to every request, or with null to leave out, as a JSON object: '{\"top_p\": null}'",
    )
    add(
        f"--{prefix}stream",
        action="store_true",
        help="openai: ask for server-sent events, for servers that only stream",
    )
    add(
        f"--{prefix}trust_remote_code",
        action="store_true",
        help="vllm, transformers: run the code that a model brings along; only for models you trust",
    )
    add(
        f"--{prefix}replicas",
        type=replicas_count,
        help="vllm: engines on a Ray cluster, each with GPUs of its own, or auto for as many as its GPUs give",
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


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every script with an engine has."""
    add = parser.add_argument
    add("--max_retries", type=natural_int, default=2, help="fresh tries after an unreadable answer")
    add("--max_failures", type=float, default=0.01, help="share of failures that exits with 0")
    add("--max_bad_lines", type=float, default=0.01, help="share of unusable input lines that exits with 0")
    add("--seed", type=int, default=0, help="seed of the sampling")
    add("--ray_address", help="of the cluster of replicas (default: RAY_ADDRESS, else this machine's own)")
    add("--strict", action="store_true", help="stop at the first bad line instead of skipping it")
    add("--resume", action="store_true", help="continue an unfinished run")
    add("--overwrite", action="store_true", help="replace existing outputs")


def job_settings(
    arguments: argparse.Namespace,
    *,
    prefix: str,
    model_path: str | None,
    model_flag: str,
    offline_rule: Callable[[], Callable[[list[dict[str, str]]], str]] | None = None,
    budget: Budget | None = None,
) -> JobSettings:
    """What a job takes from the flags of `add_job_arguments` and `add_engine_arguments`, see `build_engine`.

    Raises:
        UserError: When the budget, which all jobs of a run share, needs prices that nobody knows.
    """
    make_engine = partial(
        build_engine,
        arguments,
        prefix=prefix,
        model_path=model_path,
        model_flag=model_flag,
        offline_rule=offline_rule,
    )
    return JobSettings(
        make_engine=make_engine,
        prices=prices_of(arguments, prefix=prefix, model_path=model_path),
        meter=_meter(budget, arguments, prefix=prefix, model_path=model_path, model_flag=model_flag),
        max_retries=arguments.max_retries,
        max_failures=arguments.max_failures,
        max_bad_lines=arguments.max_bad_lines,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )


def build_engine(
    arguments: argparse.Namespace,
    *,
    prefix: str,
    model_path: str | None,
    model_flag: str,
    offline_rule: Callable[[], Callable[[list[dict[str, str]]], str]] | None = None,
) -> Engine:
    """Makes the engine that the flags name; the heavy imports happen here.

    Args:
        arguments: The parsed flags of `add_engine_arguments`, and `seed`.
        prefix: As given to `add_engine_arguments`.
        model_path: The model; not needed by `openai` and `offline`.
        model_flag: The flag that names it, for error messages.
        offline_rule: Makes the rule that stands in for the model.

    Raises:
        UserError: When a flag is missing or the model cannot be used.
    """
    flags = {name: getattr(arguments, f"{prefix}{name}") for name in _FLAGS}
    name, reason, source = choose_engine(arguments, prefix=prefix, model_path=model_path, model_flag=model_flag)
    if reason:
        print(f"--{prefix}engine auto: {name}, because {reason}", file=sys.stderr)
    if name == "offline" and offline_rule:
        from tuner.learn_to_ask.engines.offline import OfflineEngine

        return OfflineEngine(offline_rule())
    if name == "openai":
        from tuner.learn_to_ask.engines.openai_address import Endpoint
        from tuner.learn_to_ask.engines.openai_engine import OpenAIEngine

        endpoint = Endpoint(
            base_url=" ".join(flags["base_url"]),
            model=flags["model"],
            api_key_env=flags["api_key_env"],
            api_key_header=flags["api_key_header"],
            connect_timeout=flags["connect_timeout"],
            read_timeout=flags["read_timeout"],
            max_retries=flags["request_retries"],
            extra_body=flags["extra_body"],
            extra_json=flags["extra_json"],
            stream=flags["stream"],
        )
        return OpenAIEngine(endpoint, concurrency=flags["concurrency"])
    assert source  # every other engine has a model
    if source.explanation:
        print(f"{model_flag} {source.given}: {source.explanation}", file=sys.stderr)
    engine = _load(name, source, flags, seed=arguments.seed, pool=_pool(arguments, prefix=prefix))
    engine.description = f"{name}:{source.name}"
    return engine


def _load(name: str, source: ModelSource, flags: dict[str, Any], *, seed: int, pool: ReplicaFlags | None) -> Engine:
    """Loads a model into an engine, or several; converted before where that is needed."""
    if source.shards:
        from tuner.learn_to_ask.models.checkpoint_conversion import convert_shards

        convert_shards(source)
    if name == "vllm":
        from tuner.learn_to_ask.engines.vllm import VLLMEngine

        options = {name: flags[name] for name in _VLLM_OPTIONS}
        if pool:
            from tuner.learn_to_ask.engines.replicas.start import start_replicas

            return start_replicas(source, options, seed=seed, flags=pool)
        return VLLMEngine(source.model, seed=seed, adapter=source.adapter, **options)
    if name == "transformers":
        from tuner.learn_to_ask.engines.transformers import TransformersEngine

        return TransformersEngine(
            source.model,
            batch_size=flags["batch_size"],
            seed=seed,
            adapter=source.adapter,
            trust_remote_code=flags["trust_remote_code"],
        )
    from tuner.learn_to_ask.engines.tinker import TinkerEngine

    return TinkerEngine(source.model, seed=seed)


def _meter(
    budget: Budget | None, arguments: argparse.Namespace, *, prefix: str, model_path: str | None, model_flag: str
) -> Meter | None:
    """The engine's share of a budget; rules take no tokens, and local models cost nothing unless flags say what."""
    if budget is None:
        return None
    name = check_engine(arguments, prefix=prefix, model_path=model_path, model_flag=model_flag)
    if name == "offline":
        return None
    required_by = "--max_usd" if budget.max_usd is not None and name not in LOCAL_ENGINES else ""
    prices = prices_of(arguments, prefix=prefix, model_path=model_path, required_by=required_by)
    if budget.max_usd is not None and prices is None:
        flags = f"--{prefix}price_in and --{prefix}price_out"
        print(
            f"--max_usd: the {name} engine costs nothing without {flags}; --max_tokens_total limits it", file=sys.stderr
        )
    return Meter(budget=budget, prices=prices)


def check_engine(arguments: argparse.Namespace, *, prefix: str, model_path: str | None, model_flag: str) -> str:
    """Checks the flags and the model of an engine that is only built later, after something long.

    Returns:
        Which engine it will be.

    Raises:
        UserError: When a flag is missing, or the model's path holds nothing that the engine can load.
    """
    name, _, source = choose_engine(arguments, prefix=prefix, model_path=model_path, model_flag=model_flag)
    if source and (pool := _pool(arguments, prefix=prefix)):
        from tuner.learn_to_ask.engines.replicas.start import check_replicas

        options = {name: getattr(arguments, f"{prefix}{name}") for name in _VLLM_OPTIONS}
        check_replicas(source, options, pool)
    return name


def _pool(arguments: argparse.Namespace, *, prefix: str) -> ReplicaFlags | None:
    """What the flags say of several replicas, `None` for one engine in this process."""
    replicas = getattr(arguments, f"{prefix}replicas")
    if replicas is None:
        return None
    return ReplicaFlags(replicas=replicas, flag=f"--{prefix}replicas", ray_address=arguments.ray_address)


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
