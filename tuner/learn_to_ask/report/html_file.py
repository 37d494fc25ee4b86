"""A template as one HTML file that needs nothing else: no network, no server, no other file."""

import base64
import hashlib
from pathlib import Path

STYLE = Path(__file__).parent / "page.css"  # of all pages


def html_file(template: Path, *, script: str = "", **values: object) -> str:
    """Fills a template. Texts reach it escaped; a content security policy lets only its own style and script act.

    Args:
        template: A Jinja template. It puts `policy`, `style` and `script` where they belong.
        script: JavaScript of the page; without any, none can run.
        values: What else the template shows.
    """
    import jinja2
    from markupsafe import Markup

    style = STYLE.read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    allowed = _hash(script) if script else "'none'"
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {allowed}; base-uri 'none'; form-action 'none'"
    return environment.get_template(template.name).render(
        **values, style=Markup(style), script=Markup(script), policy=policy
    )


def _hash(text: str) -> str:
    """What a content security policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
