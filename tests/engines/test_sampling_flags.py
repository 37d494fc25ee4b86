"""The flags of sampling: defaults, presets that replace them, and flags that count more than either."""

import argparse
from dataclasses import replace

import pytest

from tuner.learn_to_ask.engines.base import Sampling
from tuner.learn_to_ask.engines.sampling_flags import add_sampling_arguments, sampling_of

DEFAULT = Sampling(temperature=1.0, top_p=0.95, max_tokens=512, repetition_penalty=1.2)
TRAINED = Sampling(temperature=1.0, top_p=1.0, max_tokens=512)


def parsed(*flags):
    parser = argparse.ArgumentParser()
    add_sampling_arguments(parser, DEFAULT, part="policy", prefix="", presets={"trained": TRAINED})
    add_sampling_arguments(parser, Sampling(temperature=0.7, top_p=1.0, max_tokens=9), part="grader", prefix="grader_")
    return parser.parse_args(flags)


@pytest.mark.parametrize(
    ("flags", "sampling"),
    [
        ([], DEFAULT),
        (["--sampling", "trained"], TRAINED),
        (
            ["--repetition_penalty", "1.1"],
            Sampling(temperature=1.0, top_p=0.95, max_tokens=512, repetition_penalty=1.1),
        ),
        (["--sampling", "trained", "--max_tokens", "48"], Sampling(temperature=1.0, top_p=1.0, max_tokens=48)),
        (
            [
                "--sampling",
                "trained",
                "--repetition_penalty",
                "1.2",
            ],  # the other preset's value counts when it is given
            Sampling(temperature=1.0, top_p=1.0, max_tokens=512, repetition_penalty=1.2),
        ),
        (["--temperature", "0"], replace(DEFAULT, temperature=0.0)),
    ],
)
def test_a_flag_counts_more_than_a_preset_and_a_preset_more_than_the_default(flags, sampling):
    assert sampling_of(parsed(*flags), prefix="") == sampling


def test_the_grader_has_flags_of_its_own():
    arguments = parsed("--sampling", "trained", "--grader_top_p", "0.5")

    assert sampling_of(arguments, prefix="grader_") == Sampling(temperature=0.7, top_p=0.5, max_tokens=9)
    assert sampling_of(arguments, prefix="", n=3).n == 3
