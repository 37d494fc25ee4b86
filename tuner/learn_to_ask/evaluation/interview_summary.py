"""Prints what a file of whole interviews is worth, on one screen."""

from pathlib import Path

from tuner.learn_to_ask.core.records import Interview
from tuner.learn_to_ask.evaluation.bootstrap import Estimate
from tuner.learn_to_ask.evaluation.interview_estimates import estimate
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS, measure, observe
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl


def print_metrics(interview_file: Path) -> None:
    """Prints the metrics of an interview file, the policy's beside the logged expert's.

    Raises:
        UserError: For the first line that is no interview.
    """
    measured, compared = [], []
    for one in read_jsonl(interview_file, Interview, unique_key="session_id", report=ReadReport(), strict=True):
        measured.append(measure(observe(one, one.held)))
        compared.append(measure(observe(one, one.logged)))
    held, logged = estimate(measured), estimate(compared)

    def shown(each: Estimate) -> str:
        if each.value is None:
            return "n/a"
        return f"{each.value:.3f}" + ("" if each.low is None else f" [{each.low:.3f}, {each.high:.3f}]")

    width = max(len(metric.title) for metric in METRICS.values())
    print(f"{len(measured)} interviews, mean with 95% interval over sessions")
    print(f"  {'':<{width}}  {'policy':<22}  logged questions")
    for key, metric in METRICS.items():
        print(f"  {metric.title:<{width}}  {shown(held[key]):<22}  {shown(logged[key])}")
