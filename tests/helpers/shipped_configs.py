"""The shipped configs and the commands in their headers."""

import re
import shlex
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "tuner" / "learn_to_ask"


# Config -> GPUs of each node, and who gets them: policy, grader, trainer.
ON_GPUS = {
    "config.yaml": ((8,), (4, 2, 2)),
    "configs/two_gpus.yaml": ((2,), (1, 0, 1)),
    "configs/four_gpus.yaml": ((4,), (1, 1, 2)),
    "configs/multi_node.yaml": ((8, 8), (8, 4, 4)),
}


ON_TINKER = ("configs/tinker.yaml", "quickstart/config.yaml")


# The published architectures: hidden, layers, heads, key-value heads, intermediate, vocabulary, tied embeddings.
QWEN_2_5 = {
    "Qwen2.5-3B-Instruct": (2048, 36, 16, 2, 11008, 151936, True),
    "Qwen2.5-7B-Instruct": (3584, 28, 28, 4, 18944, 152064, False),
    "Qwen2.5-32B-Instruct": (5120, 64, 40, 8, 27648, 152064, False),
}


def header(path):
    """The comment that a file begins with."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#"))
    return "\n".join(lines)


def command_of(path):
    """The flags of the command in the header of a file, and the variables that it exports."""
    text = header(path).replace("\\\n", " ")
    [command] = re.findall(r"^ +python tuner/learn_to_ask/main\.py(.*)$", text, re.MULTILINE)
    return shlex.split(command), dict(re.findall(r"^ +export (\w+)=(.*)$", text, re.MULTILINE))


def without_config(flags):
    """The flags without --config, whose path is relative to the checkout."""
    if "--config" not in flags:
        return flags
    at = flags.index("--config")
    return flags[:at] + flags[at + 2 :]
