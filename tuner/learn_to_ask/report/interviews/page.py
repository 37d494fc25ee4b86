"""The report of whole interviews as one page, with its plots and the reader of interviews."""

from pathlib import Path

from tuner.learn_to_ask.report.examples import Examples
from tuner.learn_to_ask.report.html_file import html_file
from tuner.learn_to_ask.report.interviews.plots import (
    coverage_legend,
    coverage_plot,
    outcomes_legend,
    outcomes_plot,
    side_by_side_plot,
)
from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.interviews.tables import LOGGED, interview_tables

_RESOURCES = Path(__file__).parent
_BROWSER = _RESOURCES.parent / "browser.js"


def interviews_to_html(report: InterviewReport, examples: Examples) -> str:
    """The page. Texts reach it escaped, and only its own style and script act.

    Args:
        report: What it says.
        examples: What it lets one read.
    """
    names = [one.name for one in report.policies]
    return html_file(
        _RESOURCES / "page.html",
        script="".join(script.read_text(encoding="utf-8") for script in (_BROWSER, _RESOURCES / "page.js")),
        report=report,
        names=names,
        tables=list(interview_tables(report)),
        plots={
            "coverage": coverage_plot(report),
            "side_by_side": side_by_side_plot(report),
            "outcomes": outcomes_plot(report),
        },
        legends={"coverage": coverage_legend(report), "outcomes": outcomes_legend(report)},
        examples=examples,
        data={
            "names": names,
            "sides": [*names, LOGGED],
            "speakers": {"user": report.user, "assistant": report.assistant},
            "examples": examples.items,
        },
    )
