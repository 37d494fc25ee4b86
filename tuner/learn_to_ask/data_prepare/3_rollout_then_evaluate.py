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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # runs from a checkout that is not installed

from tuner.learn_to_ask.cli import HelpFormatter, run
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
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.grade_rollouts import GRADER_SAMPLING, PUBLISHED_GRADER_SAMPLING, evaluate
from tuner.learn_to_ask.evaluation.hold_interviews import MAX_TURNS, TRAIN_MODE, hold_interviews
from tuner.learn_to_ask.evaluation.logged_reference import check_reference, grade_reference, reference_files
from tuner.learn_to_ask.evaluation.overlap import run_both
from tuner.learn_to_ask.evaluation.roll_out import ROLLOUT_MODES, ROLLOUT_SAMPLING, TRAINED_SAMPLING, roll_out
from tuner.learn_to_ask.evaluation.rollout_files import check_earlier_run
from tuner.learn_to_ask.shards import add_shard_argument, parse_shard


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
    parser.add_argument(
        "--interviews",
        type=Path,
        metavar="SAMPLES",
        help="also hold whole interviews with the users of these samples of 1_info_extract_pipeline.py, before the "
        "rollouts; python -m tuner.learn_to_ask.evaluation.interview does only that, with more choices",
    )
    parser.add_argument(
        "--interview_file_path", type=Path, help="gets them (default: the evaluation's name with _interviews)"
    )
    parser.add_argument(
        "--max_turns", type=positive_int, default=MAX_TURNS, help="questions after which an interview is broken off"
    )
    parser.add_argument(
        "--grade_reference",
        action="store_true",
        help="let the grader also grade the logged expert's own next messages, into reference_… beside the two files",
    )
    parser.add_argument("--train_mode", choices=TRAIN_MODES, default="Ra+Rs", help="picks the policy's system prompt")
    policy_presets = {"published": ROLLOUT_SAMPLING, "trained": TRAINED_SAMPLING}
    add_sampling_arguments(parser, ROLLOUT_SAMPLING, part="policy", prefix="", presets=policy_presets)
    grader_presets = {"published": PUBLISHED_GRADER_SAMPLING}
    add_sampling_arguments(parser, GRADER_SAMPLING, part="grader", prefix="grader_", presets=grader_presets)
    add_domain_argument(parser)
    add_job_arguments(parser)
    add_shard_argument(parser)
    add_budget_arguments(parser)
    add_engine_arguments(parser, part="policy", prefix="eval_", offline=False)
    add_engine_arguments(parser, part="grader", prefix="grader_", offline=True)
    return parser


def main() -> int:
    """Reads the flags, rolls out and grades; long, because it hands many flags on."""
    arguments = make_parser().parse_args()
    if arguments.interviews and arguments.train_mode != TRAIN_MODE:
        raise UserError(f"--interviews: needs the prompt that says when to stop, --train_mode {TRAIN_MODE}")
    shard = parse_shard(arguments.shard)
    if arguments.grade_reference and shard:
        raise UserError(
            "--grade_reference: not with --shard; merge the shards, then run this on the merged files with --resume"
        )
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
        shard=shard,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )

    policy = {
        "settings": job_settings(
            arguments, prefix="eval_", **policy_model, budget=budget if arguments.interviews or not rolled_out else None
        ),
        "domain": domain,
        "rollout_mode": arguments.rollout_mode,
        "shard": shard,
        "strict": arguments.strict,
    }
    reference = reference_files(arguments.rollout_file_path, arguments.eval_file_path)
    if arguments.grade_reference:
        check_reference(
            arguments.test_file_path,
            *reference,
            domain=domain,
            grade_repeat=arguments.grade_repeat,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )

    codes = [_interviews(arguments, policy)] if arguments.interviews else []
    roll = partial(
        roll_out,
        test_file=arguments.test_file_path,
        rollout_file=arguments.rollout_file_path,
        sampling=sampling_of(arguments, prefix="", n=arguments.rollout_repeat),
        train_mode=arguments.train_mode,
        **policy,
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
        shard=shard,
    )
    codes += run_both(roll, grade, policy_engine=policy_engine, grader_engine=grader_engine)
    if arguments.grade_reference:
        codes.append(grade_reference(grade, arguments.test_file_path, *reference, domain=domain))
    return max(codes)


def _interviews(arguments: argparse.Namespace, policy: dict[str, Any]) -> int:
    """Holds the interviews, prints what they are worth, and returns the exit code.

    Args:
        arguments: The parsed flags.
        policy: What rollouts and interviews have in common.
    """
    from tuner.learn_to_ask.evaluation.interview_summary import print_metrics  # numpy is not for every --help

    evaluation: Path = arguments.eval_file_path
    output: Path = arguments.interview_file_path or evaluation.with_name(f"{evaluation.stem}_interviews.jsonl")
    code = hold_interviews(
        test_file=arguments.interviews,
        output_file=output,
        sampling=sampling_of(arguments, prefix=""),
        max_turns=arguments.max_turns,
        test_flag="--interviews",
        output_flag="--interview_file_path",
        **policy,
    )
    print_metrics(output)
    return code


if __name__ == "__main__":
    run(main)
