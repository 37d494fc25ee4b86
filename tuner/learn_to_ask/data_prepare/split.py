"""Splits sessions into a training and a test set, and checks that no near-duplicate stands on both sides.

Examples:
  python -m tuner.learn_to_ask.data_prepare.split curated.jsonl --train train.jsonl --test test.jsonl

  # two files that were split before
  python -m tuner.learn_to_ask.data_prepare.split --check_only --train train_origin.jsonl --test test_origin.jsonl
"""

import argparse
from pathlib import Path

from tuner.learn_to_ask.cli import HelpFormatter, run
from tuner.learn_to_ask.data_prepare.curation.near_duplicates import SIMILARITY
from tuner.learn_to_ask.data_prepare.curation.split_files import check_split, split_sessions
from tuner.learn_to_ask.errors import UserError


def main() -> int:
    """Reads the flags, splits and checks."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s IN --train FILE --test FILE [flags]", description=__doc__, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("input_file", metavar="IN", nargs="?", type=Path, help="sessions, one JSON object a line")
    add("--train", type=Path, required=True, help="sessions to train on")
    add("--test", type=Path, required=True, help="sessions to test with")
    add("--test_share", type=float, default=0.2, help="share of the sessions to test with")
    add("--seed", type=int, default=0, help="same seed, same split")
    add("--similarity", type=float, default=SIMILARITY, help="share of common passages that makes near-duplicates")
    add("--check_only", action="store_true", help="do not split, check --train and --test; a leak is exit code 1")
    add("--strict", action="store_true", help="stop at the first bad line instead of skipping it")
    add("--max_bad_lines", type=float, default=0.01, help="share of unusable input lines that exits with 0")
    add("--overwrite", action="store_true", help="replace existing outputs")
    arguments = parser.parse_args()
    for flag in ("test_share", "similarity"):
        if not 0 < getattr(arguments, flag) <= 1:
            raise UserError(f"--{flag} {getattr(arguments, flag):g}: is not above 0 and up to 1")
    if arguments.check_only:
        if arguments.input_file:
            raise UserError(f"IN {arguments.input_file}: --check_only reads --train and --test only; leave one out")
        return check_split(
            arguments.train, arguments.test, similarity=arguments.similarity, max_bad_lines=arguments.max_bad_lines
        )
    if not arguments.input_file:
        raise UserError("IN: name the sessions to split, or pass --check_only")
    return split_sessions(
        input_file=arguments.input_file,
        train_file=arguments.train,
        test_file=arguments.test,
        test_share=arguments.test_share,
        seed=arguments.seed,
        similarity=arguments.similarity,
        strict=arguments.strict,
        max_bad_lines=arguments.max_bad_lines,
        overwrite=arguments.overwrite,
    )


if __name__ == "__main__":
    run(main)
