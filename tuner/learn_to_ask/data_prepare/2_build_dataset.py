"""Step B: label the samples of step A and write the training or test set.

Example:
  python tuner/learn_to_ask/data_prepare/2_build_dataset.py \\
    --input_file tuner/learn_to_ask/data_raw/train_processed.jsonl \\
    --output_file tuner/learn_to_ask/data/train.jsonl
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.cli import HelpFormatter, run
from tuner.learn_to_ask.data_prepare.build_dataset import build_dataset
from tuner.learn_to_ask.domains import add_domain_argument, load_domain


def main() -> int:
    """Reads the flags and builds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--input_file", type=Path, required=True, help="samples of step A, in any of its formats")
    parser.add_argument("--output_file", type=Path, required=True, help="tasks, in the format of its name")
    add_domain_argument(parser)
    parser.add_argument("--strict", action="store_true", help="stop at the first bad line instead of skipping it")
    parser.add_argument(
        "--max_bad_lines", type=float, default=0.01, help="share of unusable input lines that exits with 0"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    arguments = parser.parse_args()
    return build_dataset(
        input_file=arguments.input_file,
        output_file=arguments.output_file,
        domain=load_domain(arguments.domain),
        strict=arguments.strict,
        overwrite=arguments.overwrite,
        max_bad_lines=arguments.max_bad_lines,
    )


if __name__ == "__main__":
    run(main)
