"""The report as one HTML file that needs nothing else: no network, no server, no other file."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.report.examples import Examples
from tuner.learn_to_ask.report.plots import confusion_plot, depth_plot, legend, metrics_plot
from tuner.learn_to_ask.report.results import Report
from tuner.learn_to_ask.report.tables import tables

_RESOURCES = Path(__file__).parent
# JSON inside a script element: nothing in it may look like markup, and old parsers take these two for line ends.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def to_html(report: Report, examples: Examples) -> str:
    """The page. Texts reach it escaped, and a content security policy lets only its own style and script act."""
    import jinja2
    from markupsafe import Markup

    style, script = ((_RESOURCES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_RESOURCES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [one.name for one in report.evaluations]
    return environment.get_template("page.html").render(
        report=report,
        names=names,
        tables=list(tables(report)),
        plots={"metrics": metrics_plot(report), "confusion": confusion_plot(report), "depth": depth_plot(report)},
        legend=legend(report),
        examples=examples,
        data=Markup(embedded_json({"names": names, "examples": examples.items})),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; "
        "form-action 'none'",
    )


def embedded_json(value: Any) -> str:
    """JSON that can stand inside a `<script type="application/json">`, whatever texts it holds."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


def _hash(text: str) -> str:
    """What a content security policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
