"""Puts the outputs of shards together: the file that a run without --shard would have written.

Examples:
  # of script 1, whose --input_file was train_origin.jsonl
  python -m tuner.learn_to_ask.data_prepare.merge shards/train_processed.*.jsonl \\
    --input_file tuner/learn_to_ask/data/train_origin.jsonl \\
    --output_file tuner/learn_to_ask/data_raw/train_processed.jsonl

  # of script 3, rollouts or evaluations, whose --test_file_path was test.jsonl
  python -m tuner.learn_to_ask.data_prepare.merge shards/eval.*.jsonl \\
    --input_file tuner/learn_to_ask/data/test.jsonl --output_file runs/policy/eval.jsonl
"""

import argparse
from pathlib import Path

from tuner.learn_to_ask.cli import HelpFormatter, run
from tuner.learn_to_ask.data_prepare.merging import merge_shards


def main() -> int:
    """Reads the flags and merges."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s SHARD_FILE... --input_file FILE --output_file FILE",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "shard_files",
        nargs="+",
        type=Path,
        metavar="SHARD_FILE",
        help="the outputs of all shards in any order, each with its .shard.json beside it",
    )
    parser.add_argument("--input_file", type=Path, required=True, help="what the shards were made of, all of it")
    parser.add_argument("--output_file", type=Path, required=True, help="gets all records in the order of the input")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    arguments = parser.parse_args()
    return merge_shards(
        shard_files=arguments.shard_files,
        input_file=arguments.input_file,
        output_file=arguments.output_file,
        overwrite=arguments.overwrite,
    )


if __name__ == "__main__":
    run(main)
