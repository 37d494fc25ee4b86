"""What the pages' plots are drawn with, as SVG; colours and fonts come from their style sheet."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH = 800  # of a plot
SERIES = 6  # colours in the style sheet; more of them start over
_MARKERS = ("circle", "square", "diamond", "triangle")


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


def legend(keys: Sequence[tuple[Markup, str]]) -> Markup:
    """What stands for what: something drawn in a square of 16, and its name."""
    items = [
        Markup('<li><svg class="plot key" viewBox="0 0 16 16" aria-hidden="true">{}</svg>{}</li>').format(key, name)
        for key, name in keys
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def markers(names: Sequence[str]) -> list[tuple[Markup, str]]:
    """The keys of what is told apart by markers."""
    return [(marker(8, 8, number), name) for number, name in enumerate(names)]


def marker(x: float, y: float, number: int) -> Markup:
    """The marker of an evaluation, by colour and by shape."""
    shape = _MARKERS[number % len(_MARKERS)]
    points = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
    }
    if shape == "circle":
        return Markup('<circle class="s{} mark" cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(number % SERIES, x, y)
    corners = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in points[shape])
    return Markup('<polygon class="s{} mark" points="{}"/>').format(number % SERIES, corners)
