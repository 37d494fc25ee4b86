"""Step 3: roll a policy out on the test set, grade every rollout, print the metrics.

Examples:
  # a policy and a 32B grader on GPUs
  python tuner/learn_to_ask/data_prepare/3_rollout_then_evaluate.py \\
    --eval_model_path path/to/policy --grader_model_path Qwen/Qwen2.5-32B-Instruct \\
    --test_file_path tuner/learn_to_ask/data/test.jsonl \\
    --rollout_file_path runs/policy/rollout.jsonl --eval_file_path runs/policy/eval.jsonl

  # the newest checkpoint of a training run, as the agent that was trained, graded 3 times by an API
  python tuner/learn_to_ask/data_prepare/3_rollout_then_evaluate.py \\
    --eval_model_path checkpoints/Learn2Ask/RUN --rollout_mode react \\
    --grader_base_url https://…/v1 --grader_model NAME --grader_api_key_env MY_KEY --grade_repeat 3 \\
    --test_file_path tuner/learn_to_ask/data/test.jsonl \\
    --rollout_file_path runs/tuned/rollout.jsonl --eval_file_path runs/tuned/eval.jsonl

  # weights that were trained on Tinker, without a GPU
  python tuner/learn_to_ask/data_prepare/3_rollout_then_evaluate.py \\
    --eval_model_path tinker://…/sampler_weights/… \\
    --grader_engine tinker --grader_model_path Qwen/Qwen3.6-35B-A3B \\
    --test_file_path tuner/learn_to_ask/data/test.jsonl \\
    --rollout_file_path runs/policy/rollout.jsonl --eval_file_path runs/policy/eval.jsonl
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.cli import EXIT_DONE, HelpFormatter, run
from tuner.learn_to_ask.core.reward import TRAIN_MODES
from tuner.learn_to_ask.domains import add_domain_argument, load_domain
from tuner.learn_to_ask.engines.budget_flags import add_budget_arguments, budget_of
from tuner.learn_to_ask.engines.offline import grader
from tuner.learn_to_ask.engines.sampling_flags import add_sampling_arguments, sampling_of
from tuner.learn_to_ask.engines.select import (
    add_engine_arguments,
    add_job_arguments,
    check_engine,
    job_settings,
    positive_int,
)
from tuner.learn_to_ask.evaluation.grade_rollouts import GRADER_SAMPLING, PUBLISHED_GRADER_SAMPLING, evaluate
from tuner.learn_to_ask.evaluation.overlap import run_both
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_MODES, ROLLOUT_SAMPLING, TRAINED_SAMPLING, roll_out
from tuner.learn_to_ask.evaluation.rollout_files import check_earlier_run


def make_parser() -> argparse.ArgumentParser:
    """The flags; long, because there are many."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --eval_model_path MODEL --grader_model_path MODEL --test_file_path FILE "
        "--rollout_file_path FILE --eval_file_path FILE [flags]",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--eval_model_path",
        help="the policy: a Hugging Face folder or hub id, the folder of a training run (its newest checkpoint counts) "
        "or one of its global_step_N, a LoRA adapter's folder, or a tinker:// path",
    )
    parser.add_argument("--grader_model_path", help="the grader: the same, or a model that Tinker offers")
    parser.add_argument("--test_file_path", type=Path, required=True, help="tasks of step B")
    parser.add_argument("--rollout_file_path", type=Path, required=True, help="gets the tasks with their rollouts")
    parser.add_argument("--eval_file_path", type=Path, required=True, help="gets them with their grades")
    parser.add_argument("--rollout_repeat", type=positive_int, default=3, help="rollouts of each sample")
    parser.add_argument(
        "--rollout_mode",
        choices=ROLLOUT_MODES,
        default="direct",
        help="direct: the policy answers the chat itself, as in the published evaluation; react: as the model of the "
        "ReAct agent that main.py trains",
    )
    parser.add_argument(
        "--grade_repeat",
        type=positive_int,
        default=1,
        help="gradings of each rollout; the metrics read the first, the others show how far the grader agrees with "
        "itself",
    )
    parser.add_argument("--train_mode", choices=TRAIN_MODES, default="Ra+Rs", help="picks the policy's system prompt")
    policy_presets = {"published": ROLLOUT_SAMPLING, "trained": TRAINED_SAMPLING}
    add_sampling_arguments(parser, ROLLOUT_SAMPLING, part="policy", prefix="", presets=policy_presets)
    grader_presets = {"published": PUBLISHED_GRADER_SAMPLING}
    add_sampling_arguments(parser, GRADER_SAMPLING, part="grader", prefix="grader_", presets=grader_presets)
    add_domain_argument(parser)
    add_job_arguments(parser)
    add_budget_arguments(parser)
    add_engine_arguments(parser, part="policy", prefix="eval_", offline=False)
    add_engine_arguments(parser, part="grader", prefix="grader_", offline=True)
    return parser


def main() -> int:
    """Reads the flags, rolls out and grades."""
    arguments = make_parser().parse_args()
    domain = load_domain(arguments.domain)

    # Before hours of rollouts: whatever can be known to stop the policy or the grading.
    policy_model = {"model_path": arguments.eval_model_path, "model_flag": "--eval_model_path"}
    grader_model = {"model_path": arguments.grader_model_path, "model_flag": "--grader_model_path"}
    rolled_out = arguments.resume and arguments.rollout_file_path.exists()
    policy_engine = "" if rolled_out else check_engine(arguments, prefix="eval_", **policy_model)
    grader_engine = check_engine(arguments, prefix="grader_", **grader_model)
    budget = budget_of(arguments)
    check_earlier_run(
        arguments.test_file_path,
        arguments.rollout_file_path,
        arguments.eval_file_path,
        rollout_repeat=arguments.rollout_repeat,
        grade_repeat=arguments.grade_repeat,
        max_missing=arguments.max_failures,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )

    roll = partial(
        roll_out,
        test_file=arguments.test_file_path,
        rollout_file=arguments.rollout_file_path,
        settings=job_settings(arguments, prefix="eval_", **policy_model, budget=None if rolled_out else budget),
        sampling=sampling_of(arguments, prefix="", n=arguments.rollout_repeat),
        train_mode=arguments.train_mode,
        domain=domain,
        rollout_mode=arguments.rollout_mode,
        strict=arguments.strict,
    )
    grade = partial(
        evaluate,
        test_file=arguments.test_file_path,
        rollout_file=arguments.rollout_file_path,
        eval_file=arguments.eval_file_path,
        settings=job_settings(
            arguments, prefix="grader_", **grader_model, offline_rule=partial(grader, domain), budget=budget
        ),
        sampling=sampling_of(arguments, prefix="grader_"),
        domain=domain,
        grade_repeat=arguments.grade_repeat,
    )
    codes = run_both(roll, grade, policy_engine=policy_engine, grader_engine=grader_engine)
    return EXIT_DONE if set(codes) == {EXIT_DONE} else max(codes)


if __name__ == "__main__":
    run(main)
