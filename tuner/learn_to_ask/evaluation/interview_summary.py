"""Prints what a file of whole interviews is worth, on one screen."""

from operator import itemgetter
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
    measured = []
    for one in read_jsonl(interview_file, Interview, unique_key="session_id", report=ReadReport(), strict=True):
        measured.append((one.session_id, measure(observe(one, one.held)), measure(observe(one, one.logged))))
    measured.sort(key=itemgetter(0))  # the intervals depend on an order: that of the report
    held = estimate([of_policy for _, of_policy, _ in measured])
    logged = estimate([of_expert for _, _, of_expert in measured])

    def shown(each: Estimate) -> str:
        if each.value is None:
            return "n/a"
        return f"{each.value:.3f}" + ("" if each.low is None else f" [{each.low:.3f}, {each.high:.3f}]")

    width = max(len(metric.title) for metric in METRICS.values())
    print(f"{len(measured)} interviews, mean with 95% interval over sessions")
    print(f"  {'':<{width}}  {'policy':<22}  logged questions")
    for key, metric in METRICS.items():
        print(f"  {metric.title:<{width}}  {shown(held[key]):<22}  {shown(logged[key])}")
