"""Keeps the sessions that teach, masks personal data, and says what it dropped and why.

Examples:
  python -m tuner.learn_to_ask.data_prepare.curate logs.jsonl curated.jsonl --report curate.html

  # Chinese logs that end with another mark; up to eight questions at a time are fine here
  python -m tuner.learn_to_ask.data_prepare.curate logs.jsonl curated.jsonl --language zh \\
    --end_marker '<end>' --max_questions_per_turn 8

  # a model has a look at what the rules left
  python -m tuner.learn_to_ask.data_prepare.curate logs.jsonl curated.jsonl --judge \\
    --judge_model_path Qwen/Qwen2.5-32B-Instruct
"""

import argparse
import math
from functools import partial
from pathlib import Path

from tuner.learn_to_ask.cli import HelpFormatter, run
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.data_prepare.curation.examine import CurationSettings
from tuner.learn_to_ask.data_prepare.curation.judge import JudgeSettings
from tuner.learn_to_ask.data_prepare.curation.language import ANY, CONFIDENCE
from tuner.learn_to_ask.data_prepare.curation.near_duplicates import SIMILARITY
from tuner.learn_to_ask.data_prepare.curation.personal_data import SCORE
from tuner.learn_to_ask.data_prepare.curation.rules import RULES
from tuner.learn_to_ask.data_prepare.curation.run import curate
from tuner.learn_to_ask.domains import add_domain_argument, load_domain
from tuner.learn_to_ask.engines.budget_flags import add_budget_arguments, budget_of
from tuner.learn_to_ask.engines.offline import judge
from tuner.learn_to_ask.engines.select import add_engine_arguments, add_job_arguments, check_engine, job_settings
from tuner.learn_to_ask.errors import UserError

_SWITCHES = (*(rule.key for rule in RULES), "duplicate", "near_duplicate")


def main() -> int:
    """Reads the flags and curates."""
    arguments = _parser().parse_args()
    domain = load_domain(arguments.domain)
    return curate(
        input_file=arguments.input_file,
        output_file=arguments.output_file,
        report_file=arguments.report,
        speakers=domain.speakers,
        settings=_settings(arguments, domain),
        judge=_judge(arguments, domain),
        strict=arguments.strict,
        max_bad_lines=arguments.max_bad_lines,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )


def _parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s IN OUT [--report FILE] [flags]", description=__doc__, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("input_file", metavar="IN", type=Path, help="sessions, one JSON object a line")
    add("output_file", metavar="OUT", type=Path, help="the sessions that are kept, in the same order")
    add("--report", type=Path, help="an HTML page with distributions and examples of what was dropped")
    add(
        "--off",
        nargs="+",
        default=[],
        choices=_SWITCHES,
        metavar="RULE",
        help=f"rules to switch off: {', '.join(_SWITCHES)}",
    )
    add_domain_argument(parser)
    add("--end_marker", help="what the expert says to end an interview (default: the domain's)")
    add("--language", help=f"of the sessions, such as en or zh; {ANY}: do not look (default: the domain's)")
    add(
        "--language_confidence",
        type=share,
        default=CONFIDENCE,
        help="probability from which on another language counts",
    )
    add(
        "--personal_data",
        choices=("mask", "drop", "off"),
        default="mask",
        help="mask it, drop sessions with it, or leave it",
    )
    add(
        "--personal_data_score", type=share, default=SCORE, help="how sure a recognizer must be: a phone number has 0.4"
    )
    add("--names_model", default="", help="a spaCy pipeline that finds names, such as en_core_web_sm, or its folder")
    add("--similarity", type=share, default=SIMILARITY, help="share of common passages that makes near-duplicates")
    rules = parser.add_argument_group("thresholds of the rules")
    for rule in RULES:
        if rule.threshold:
            rules.add_argument(
                f"--{rule.threshold}", type=amount, default=rule.default, help=f"{rule.title}: {rule.help}"
            )
    judge = parser.add_argument_group("the judge")
    judge.add_argument("--judge", action="store_true", help="ask a model whether what the rules left teaches")
    judge.add_argument("--judge_model_path", help="the judge: a local folder, a hub id or a Tinker model")
    judge.add_argument("--min_judge_score", type=share, default=0.5, help="a session with a lower score is dropped")
    judge.add_argument("--judgements", type=Path, help="gets what the judge says (default: OUT with .judgements.jsonl)")
    add_engine_arguments(parser, part="judge", prefix="judge_", offline=True)
    add_job_arguments(parser)
    add_budget_arguments(parser)
    return parser


def _settings(arguments: argparse.Namespace, domain: Domain) -> CurationSettings:
    """What the flags say of the rules.

    Raises:
        UserError: When the end marker is empty or flags contradict each other.
    """
    if arguments.names_model and arguments.personal_data == "off":
        raise UserError("--names_model: is not used with --personal_data off; leave one out")
    if arguments.end_marker == "":
        raise UserError("--end_marker: is empty; name what ends an interview, or pass --off broken_off goes_on")
    on = (rule for rule in RULES if rule.key not in arguments.off)
    return CurationSettings(
        thresholds={rule.key: getattr(arguments, rule.threshold) if rule.threshold else 0.0 for rule in on},
        end_marker=arguments.end_marker or domain.end_marker,
        language=arguments.language or domain.language,
        language_confidence=arguments.language_confidence,
        personal_data=arguments.personal_data,
        personal_data_score=arguments.personal_data_score,
        names_model=arguments.names_model,
        duplicates="duplicate" not in arguments.off,
        similarity=None if "near_duplicate" in arguments.off else arguments.similarity,
    )


def _judge(arguments: argparse.Namespace, domain: Domain) -> JudgeSettings | None:
    """What the flags say of the judge, `None` when there is none.

    Raises:
        UserError: When its engine cannot be had.
    """
    if not arguments.judge:
        for flag in ("judge_model_path", "judge_base_url", "max_usd", "max_tokens_total"):
            if getattr(arguments, flag) is not None:
                raise UserError(f"--{flag}: nobody judges; pass --judge as well")
        return None
    model_path, model_flag = arguments.judge_model_path, "--judge_model_path"
    check_engine(arguments, prefix="judge_", model_path=model_path, model_flag=model_flag)
    job = job_settings(
        arguments,
        prefix="judge_",
        model_path=model_path,
        model_flag=model_flag,
        offline_rule=partial(judge, domain),
        budget=budget_of(arguments),
    )
    beside = arguments.output_file.with_name(f"{arguments.output_file.name}.judgements.jsonl")
    return JudgeSettings(
        job=job, judgements_file=arguments.judgements or beside, least=arguments.min_judge_score, domain=domain
    )


def amount(text: str) -> float:
    """An argparse type for numbers from 0."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return value


def share(text: str) -> float:
    """An argparse type for numbers above 0 and up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1")
    return value


if __name__ == "__main__":
    run(main)
