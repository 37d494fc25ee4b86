"""A template as one HTML file that needs nothing else: no network, no server, no other file."""

import base64
import hashlib
import json
from pathlib import Path

STYLE = Path(__file__).parent / "page.css"  # of all pages
# JSON inside a script element: nothing in it may look like markup, and old parsers take these two for line ends.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def html_file(template: Path, *, script: str = "", data: object = None, **values: object) -> str:
    """Fills a template. Texts reach it escaped; a content security policy lets only its own style and script act.

    Args:
        template: A Jinja template that extends `base.html`.
        script: JavaScript of the page; without any, none can run.
        data: For the script, ready for JSON.
        values: What else the template shows.
    """
    import jinja2
    from markupsafe import Markup

    style = STYLE.read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, STYLE.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    allowed = _hash(script) if script else "'none'"
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {allowed}; base-uri 'none'; form-action 'none'"
    return environment.get_template(template.name).render(
        **values, style=Markup(style), script=Markup(script), data=Markup(_embedded(data)), policy=policy
    )


def _embedded(value: object) -> str:
    """JSON that can stand inside a `<script type="application/json">`, whatever texts it holds."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


def _hash(text: str) -> str:
    """What a content security policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
