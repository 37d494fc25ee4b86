"""Command-line flags of how an engine samples."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace

from tuner.learn_to_ask.engines.base import Sampling
from tuner.learn_to_ask.engines.select import positive_int


def add_sampling_arguments(
    parser: argparse.ArgumentParser,
    default: Sampling,
    *,
    part: str,
    prefix: str,
    presets: Mapping[str, Sampling] | None = None,
) -> None:
    """Adds the flags of how an engine samples.

    Args:
        parser: Gets the flags.
        default: Their defaults.
        part: What the engine plays.
        prefix: `""`, or `"grader_"`.
        presets: Other defaults by name, for `--{prefix}sampling`; a flag that is given counts more.
    """

    def add(name: str, of_type: Callable[[str], object], help_: str) -> None:
        stated = f"{help_} (default: {getattr(default, name)})"
        parser.add_argument(f"--{prefix}{name}", type=of_type, help=stated)

    add("temperature", float, f"of the {part}")
    add("top_p", float, f"of the {part}")
    add("max_tokens", positive_int, f"longest answer of the {part}")
    add("repetition_penalty", float, f"of the {part}; the Tinker API has none")
    if presets:
        told = "; ".join(f"{name}: {_preset_text(preset)}" for name, preset in presets.items())
        parser.add_argument(
            f"--{prefix}sampling", choices=presets, default="", help=f"other defaults for the four flags above. {told}"
        )
    parser.set_defaults(**{f"{prefix}sampling_presets": {"": default, **(presets or {})}})


def _preset_text(preset: Sampling) -> str:
    """A preset in words."""
    return (
        f"temperature {preset.temperature}, top_p {preset.top_p}, {preset.max_tokens} tokens, repetition penalty "
        f"{preset.repetition_penalty}"
    )


def sampling_of(arguments: argparse.Namespace, *, prefix: str, n: int = 1) -> Sampling:
    """The sampling that the flags of `add_sampling_arguments` give."""
    preset: Sampling = getattr(arguments, f"{prefix}sampling_presets")[getattr(arguments, f"{prefix}sampling", "")]
    names = ("temperature", "top_p", "max_tokens", "repetition_penalty")
    given = {name: value for name in names if (value := getattr(arguments, f"{prefix}{name}")) is not None}
    return replace(preset, **given, n=n)
