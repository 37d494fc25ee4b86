"""Step 3: roll a policy out on the test set, grade every rollout, print the metrics.

Examples:
  # a policy and a 32B grader on GPUs
  python tuner/learn_to_ask/data_prepare/3_rollout_then_evaluate.py \\
    --eval_model_path path/to/policy --grader_model_path Qwen/Qwen2.5-32B-Instruct \\
    --test_file_path tuner/learn_to_ask/data/test.jsonl \\
    --rollout_file_path runs/policy/rollout.jsonl --eval_file_path runs/policy/eval.jsonl

  # weights that were trained on Tinker, without a GPU
  python tuner/learn_to_ask/data_prepare/3_rollout_then_evaluate.py \\
    --eval_engine tinker --eval_model_path tinker://…/sampler_weights/… \\
    --grader_engine tinker --grader_model_path Qwen/Qwen3-32B \\
    --test_file_path tuner/learn_to_ask/data/test.jsonl \\
    --rollout_file_path runs/policy/rollout.jsonl --eval_file_path runs/policy/eval.jsonl
"""

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, check_output, run
from tuner.learn_to_ask.data_prepare.rollout_evaluate import ROLLOUT_SAMPLING, evaluate, roll_out
from tuner.learn_to_ask.engines.offline import grade_answer
from tuner.learn_to_ask.engines.select import (
    add_engine_arguments,
    build_engine,
    check_engine,
    natural_int,
    positive_int,
    prices,
)
from tuner.learn_to_ask.reward import TRAIN_MODES


def main() -> int:
    """Reads the flags, rolls out and grades."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --eval_model_path MODEL --grader_model_path MODEL --test_file_path FILE "
        "--rollout_file_path FILE --eval_file_path FILE [flags]",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--eval_model_path", help="the policy: a local folder, a hub id or a Tinker path")
    parser.add_argument("--grader_model_path", help="the grader: a local folder, a hub id or a Tinker model")
    parser.add_argument("--test_file_path", type=Path, required=True, help="tasks of step B")
    parser.add_argument("--rollout_file_path", type=Path, required=True, help="gets the tasks with their rollouts")
    parser.add_argument("--eval_file_path", type=Path, required=True, help="gets them with their grades")
    parser.add_argument("--rollout_repeat", type=positive_int, default=3, help="rollouts of each sample")
    parser.add_argument("--train_mode", choices=TRAIN_MODES, default="Ra+Rs", help="picks the policy's system prompt")
    parser.add_argument("--temperature", type=float, default=ROLLOUT_SAMPLING.temperature, help="of the policy")
    parser.add_argument("--top_p", type=float, default=ROLLOUT_SAMPLING.top_p, help="of the policy")
    parser.add_argument("--max_tokens", type=positive_int, default=ROLLOUT_SAMPLING.max_tokens, help="of a rollout")
    parser.add_argument(
        "--repetition_penalty",
        type=float,
        default=ROLLOUT_SAMPLING.repetition_penalty,
        help="of the policy; the Tinker API has none",
    )
    parser.add_argument("--max_retries", type=natural_int, default=2, help="fresh tries after an unreadable answer")
    parser.add_argument("--max_failures", type=float, default=0.01, help="share of failures that exits with 0")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad line instead of skipping it")
    parser.add_argument("--resume", action="store_true", help="continue an unfinished run")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    add_engine_arguments(parser, part="policy", prefix="eval_", offline=False)
    add_engine_arguments(parser, part="grader", prefix="grader_", offline=True)
    arguments = parser.parse_args()

    # Before hours of rollouts: whatever can be known to stop the grading.
    grader_model = {"model_path": arguments.grader_model_path, "model_flag": "--grader_model_path"}
    check_engine(arguments, prefix="grader_", **grader_model)
    if not arguments.resume:
        check_output(arguments.eval_file_path, "--eval_file_path", overwrite=arguments.overwrite)
    rolled_out = roll_out(
        test_file=arguments.test_file_path,
        rollout_file=arguments.rollout_file_path,
        make_engine=partial(
            build_engine,
            arguments,
            prefix="eval_",
            model_path=arguments.eval_model_path,
            model_flag="--eval_model_path",
        ),
        prices=prices(arguments, prefix="eval_"),
        sampling=dataclasses.replace(
            ROLLOUT_SAMPLING,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            max_tokens=arguments.max_tokens,
            repetition_penalty=arguments.repetition_penalty,
            n=arguments.rollout_repeat,
        ),
        train_mode=arguments.train_mode,
        max_retries=arguments.max_retries,
        max_failures=arguments.max_failures,
        strict=arguments.strict,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )
    graded = evaluate(
        rollout_file=arguments.rollout_file_path,
        eval_file=arguments.eval_file_path,
        make_engine=partial(
            build_engine,
            arguments,
            prefix="grader_",
            **grader_model,
            offline_answer=grade_answer,
        ),
        prices=prices(arguments, prefix="grader_"),
        max_retries=arguments.max_retries,
        max_failures=arguments.max_failures,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )
    return EXIT_DONE if rolled_out == graded == EXIT_DONE else max(rolled_out, graded)


if __name__ == "__main__":
    run(main)
