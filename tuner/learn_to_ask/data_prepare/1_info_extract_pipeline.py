"""Step A: cut raw logs into context-future samples and extract what each future reveals.

Examples:
  # a 32B model on a GPU
  python tuner/learn_to_ask/data_prepare/1_info_extract_pipeline.py \\
    --input_file tuner/learn_to_ask/data/train_origin.jsonl \\
    --output_file tuner/learn_to_ask/data_raw/train_processed.jsonl --model_path Qwen/Qwen2.5-32B-Instruct

  # any OpenAI-compatible server; the key is read from the environment
  python tuner/learn_to_ask/data_prepare/1_info_extract_pipeline.py \\
    --input_file tuner/learn_to_ask/data/train_origin.jsonl \\
    --output_file tuner/learn_to_ask/data_raw/train_processed.jsonl \\
    --base_url https://example.com/v1 --model qwen2.5-32b-instruct --api_key_env MY_KEY --concurrency 64

  # the second of four machines; data_prepare/merge.py puts the four outputs together
  python tuner/learn_to_ask/data_prepare/1_info_extract_pipeline.py --shard 2/4 \\
    --input_file tuner/learn_to_ask/data/train_origin.jsonl \\
    --output_file shards/train_processed.2.jsonl --model_path Qwen/Qwen2.5-32B-Instruct

  # the sample logs without any model
  python tuner/learn_to_ask/data_prepare/1_info_extract_pipeline.py --engine offline \\
    --input_file tuner/learn_to_ask/sample_data/train_origin.jsonl \\
    --output_file tuner/learn_to_ask/data_raw/train_processed.jsonl
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.cli import HelpFormatter, run
from tuner.learn_to_ask.data_prepare.extract_info import EXTRACTOR_SAMPLING, extract_info
from tuner.learn_to_ask.domains import add_domain_argument, load_domain
from tuner.learn_to_ask.engines.budget_flags import add_budget_arguments, budget_of
from tuner.learn_to_ask.engines.offline import extractor
from tuner.learn_to_ask.engines.sampling_flags import add_sampling_arguments, sampling_of
from tuner.learn_to_ask.engines.select import (
    add_engine_arguments,
    add_job_arguments,
    job_settings,
)
from tuner.learn_to_ask.shards import add_shard_argument, parse_shard


def main() -> int:
    """Reads the flags and extracts."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --input_file FILE --output_file FILE --model_path MODEL [flags]",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--input_file",
        type=Path,
        required=True,
        help="sessions, one JSON object a line (.jsonl, .jsonl.gz, .jsonl.zst) or .parquet",
    )
    parser.add_argument("--output_file", type=Path, required=True, help="samples, in the format of its name")
    parser.add_argument("--model_path", help="the extractor: a local folder, a hub id or a Tinker model")
    add_sampling_arguments(parser, EXTRACTOR_SAMPLING, part="extractor", prefix="")
    add_engine_arguments(parser, part="extractor", prefix="", offline=True)
    add_domain_argument(parser)
    add_job_arguments(parser)
    add_shard_argument(parser)
    add_budget_arguments(parser)
    arguments = parser.parse_args()

    shard = parse_shard(arguments.shard)
    domain = load_domain(arguments.domain)
    return extract_info(
        input_file=arguments.input_file,
        output_file=arguments.output_file,
        settings=job_settings(
            arguments,
            prefix="",
            model_path=arguments.model_path,
            model_flag="--model_path",
            offline_rule=partial(extractor, domain),
            budget=budget_of(arguments),
        ),
        sampling=sampling_of(arguments, prefix=""),
        domain=domain,
        shard=shard,
        strict=arguments.strict,
    )


if __name__ == "__main__":
    run(main)
