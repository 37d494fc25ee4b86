"""The report as one page, with its plots and the browser of examples."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tuner.learn_to_ask.report.examples import Examples
from tuner.learn_to_ask.report.html_file import html_file
from tuner.learn_to_ask.report.plots import confusion_plot, depth_plot, legend, metrics_plot
from tuner.learn_to_ask.report.results import Report
from tuner.learn_to_ask.report.tables import tables

_RESOURCES = Path(__file__).parent
# JSON inside a script element: nothing in it may look like markup, and old parsers take these two for line ends.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def to_html(report: Report, examples: Examples) -> str:
    """The page. Texts reach it escaped, and only its own style and script act."""
    names = [one.name for one in report.evaluations]
    return html_file(
        _RESOURCES / "page.html",
        script=(_RESOURCES / "page.js").read_text(encoding="utf-8"),
        report=report,
        names=names,
        tables=list(tables(report)),
        plots={"metrics": metrics_plot(report), "confusion": confusion_plot(report), "depth": depth_plot(report)},
        legend=legend(report),
        examples=examples,
        data=Markup(embedded_json({"names": names, "examples": examples.items})),
    )


def embedded_json(value: Any) -> str:
    """JSON that can stand inside a `<script type="application/json">`, whatever texts it holds."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)
