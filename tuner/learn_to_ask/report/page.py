"""The report as one page, with its plots and the browser of examples."""

from pathlib import Path

from tuner.learn_to_ask.report.drawing import legend, markers
from tuner.learn_to_ask.report.examples import Examples
from tuner.learn_to_ask.report.html_file import html_file
from tuner.learn_to_ask.report.plots import confusion_plot, depth_plot, metrics_plot
from tuner.learn_to_ask.report.results import Report
from tuner.learn_to_ask.report.tables import tables

_RESOURCES = Path(__file__).parent


def to_html(report: Report, examples: Examples, *, interviews: bool = False) -> str:
    """The page. Texts reach it escaped, and only its own style and script act.

    Args:
        report: What it says.
        examples: What it lets one read.
        interviews: Whether a page of whole interviews lies beside it.
    """
    names = [one.name for one in report.evaluations]
    return html_file(
        _RESOURCES / "page.html",
        script="".join((_RESOURCES / name).read_text(encoding="utf-8") for name in ("browser.js", "page.js")),
        report=report,
        names=names,
        tables=list(tables(report)),
        plots={"metrics": metrics_plot(report), "confusion": confusion_plot(report), "depth": depth_plot(report)},
        legend=legend(markers(names)),
        examples=examples,
        interviews=interviews,
        data={"names": names, "examples": examples.items},
    )
