"""What the pages' plots are drawn with, as SVG; colours and fonts come from their style sheet."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH = 800  # of a plot


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def text(x: float, y: float, said: str, kind: str) -> Markup:
    """One line of text."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, said)


def drawing(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    """The drawing with its description."""
    return Markup('<svg class="plot" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        width, height, label, Markup("").join(parts)
    )
