"""Lets a policy hold whole interviews with the users of logged sessions, and measures them.

A user answers with what the log holds, by rules or (--user llm) as a model chooses. The logged expert's own questions,
put to the same users, are the line to compare with.

Examples:
  python -m tuner.learn_to_ask.evaluation.interview --eval_model_path runs/tuned \\
    --test_file_path tuner/learn_to_ask/data_raw/test_processed.jsonl --output_file runs/tuned/interviews.jsonl
"""

import argparse
from pathlib import Path

from tuner.learn_to_ask.cli import HelpFormatter, run
from tuner.learn_to_ask.domains import add_domain_argument, load_domain
from tuner.learn_to_ask.engines.budget_flags import add_budget_arguments, budget_of
from tuner.learn_to_ask.engines.sampling_flags import add_sampling_arguments, sampling_of
from tuner.learn_to_ask.engines.select import (
    add_engine_arguments,
    add_job_arguments,
    check_engine,
    job_settings,
    positive_int,
)
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.hold_interviews import MAX_TURNS, hold_interviews
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_MODES, ROLLOUT_SAMPLING, TRAINED_SAMPLING
from tuner.learn_to_ask.shards import add_shard_argument, parse_shard

USERS = ("rules", "llm")


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --eval_model_path MODEL --test_file_path FILE --output_file FILE [flags]",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--eval_model_path", help="the policy, as in 3_rollout_then_evaluate.py")
    add("--test_file_path", type=Path, required=True, help="samples of 1_info_extract_pipeline.py, whole sessions")
    add("--output_file", type=Path, required=True, help="gets one interview a line")
    add("--max_turns", type=positive_int, default=MAX_TURNS, help="questions after which an interview is broken off")
    add(
        "--user",
        choices=USERS,
        default="rules",
        help="who answers: rules, by shared words; llm: a model, which only chooses what a question is about",
    )
    add("--user_model_path", help="the model of --user llm, as --eval_model_path")
    add("--rollout_mode", choices=ROLLOUT_MODES, default="direct", help="as in 3_rollout_then_evaluate.py")
    presets = {"published": ROLLOUT_SAMPLING, "trained": TRAINED_SAMPLING}
    add_sampling_arguments(parser, ROLLOUT_SAMPLING, part="policy", prefix="", presets=presets)
    add_domain_argument(parser)
    add_job_arguments(parser)
    add_shard_argument(parser)
    add_budget_arguments(parser)
    add_engine_arguments(parser, part="policy", prefix="eval_", offline=False)
    add_engine_arguments(parser, part="user", prefix="user_", offline=False)
    return parser


def main() -> int:
    """Reads the flags, holds the interviews and prints what they are worth."""
    arguments = make_parser().parse_args()
    shard = parse_shard(arguments.shard)
    user_model = {"model_path": arguments.user_model_path, "model_flag": "--user_model_path"}
    by_model = arguments.user == "llm"
    if by_model and arguments.user_replicas == "auto" and arguments.eval_replicas:
        raise UserError("--user_replicas auto: would leave no GPU for --eval_replicas; name a number")
    if by_model:  # before the policy is loaded
        check_engine(arguments, prefix="user_", **user_model)
    budget = budget_of(arguments)
    code = hold_interviews(
        test_file=arguments.test_file_path,
        output_file=arguments.output_file,
        settings=job_settings(
            arguments,
            prefix="eval_",
            model_path=arguments.eval_model_path,
            model_flag="--eval_model_path",
            budget=budget,
        ),
        sampling=sampling_of(arguments, prefix=""),
        domain=load_domain(arguments.domain),
        rollout_mode=arguments.rollout_mode,
        max_turns=arguments.max_turns,
        shard=shard,
        user=job_settings(arguments, prefix="user_", **user_model, budget=budget) if by_model else None,
        strict=arguments.strict,
    )
    from tuner.learn_to_ask.evaluation.interview_summary import print_metrics  # numpy is not for every --help

    print_metrics(arguments.output_file)
    return code


if __name__ == "__main__":
    run(main)
