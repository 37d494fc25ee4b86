"""The page's plots of whole interviews as SVG; the logged questions are grey and dashed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from markupsafe import Markup

from tuner.learn_to_ask.evaluation.bootstrap import Estimate
from tuner.learn_to_ask.report.drawing import SERIES, WIDTH, drawing, legend, line, marker, markers, text
from tuner.learn_to_ask.report.interviews.results import InterviewReport
from tuner.learn_to_ask.report.interviews.tables import LOGGED
from tuner.learn_to_ask.report.tables import interval

Scale = Callable[[float], float]
_SHARES = (0, 0.25, 0.5, 0.75, 1)
_OUTCOMES = ("in_time", "too_early", "too_late", "broken_off")
_NAMES = 190  # left of a plot, for names
_ROW = 34
_CHARACTER = 7.5  # at most, of a plot's text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """A policy, or the logged expert.

    Attributes:
        name: For showing.
        kind: Its class in the style sheet.
        number: Of its marker, `None` for the logged expert, who has none.
        metrics: Of its interviews.
        curve: Of its interviews.
    """

    name: str
    kind: str
    number: int | None
    metrics: dict[str, Estimate]
    curve: list[Estimate]

    def point(self, x: float, y: float, said: str) -> Markup:
        """Its marker, which says what it stands for."""
        mark = (
            Markup('<circle class="logged mark" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x, y)
            if self.number is None
            else marker(x, y, self.number)
        )
        return Markup("<g>{}<title>{}</title></g>").format(mark, said)


def coverage_plot(report: InterviewReport) -> Markup:
    """Coverage by turn with its band, of every side."""
    height, left, bottom = 330, 50, 50

    def across(turn: float) -> float:
        return left + turn / report.max_turns * (WIDTH - left - 20)

    def up(share: float) -> float:
        return height - bottom - share * (height - bottom - 12)

    parts: list[Markup] = []
    for share in _SHARES:
        parts.append(line(left, up(share), WIDTH - 20, up(share), "grid"))
        parts.append(text(left - 8, up(share) + 4, f"{share:g}", "tick end"))
    for turn in _ticks(report.max_turns, most=13):
        parts.append(text(across(turn), height - bottom + 18, str(turn), "tick middle"))
    parts.append(text((left + WIDTH) / 2, height - 8, "turns", "middle"))
    sides = [*_sides(report)][::-1]  # the policies over the logged line, the first over all
    for side in sides:
        there = [(across(turn), one) for turn, one in enumerate(side.curve)]
        parts.append(_band(there, side.kind, up))
    for side in sides:
        corners = " ".join(f"{across(turn):.1f},{up(one.value or 0):.1f}" for turn, one in enumerate(side.curve))
        parts.append(Markup('<polyline class="{} curve" points="{}"/>').format(side.kind, corners))
        for turn, one in enumerate(side.curve):
            said = f"{side.name}, after turn {turn}: {interval(one)}"
            parts.append(side.point(across(turn), up(one.value or 0), said))
    return drawing(WIDTH, height, "Coverage by turn; the same figures are in the table below", parts)


def coverage_legend(report: InterviewReport) -> Markup:
    """Which line is whose."""
    return legend([*markers([one.name for one in report.policies]), (line(0, 8, 16, 8, "logged"), LOGGED)])


def outcomes_legend(report: InterviewReport) -> Markup:
    """Which part of a bar is which end."""
    return legend([(_part(number, 1, 1, 14, 14), report.titles[key]) for number, key in enumerate(_OUTCOMES)])


def side_by_side_plot(report: InterviewReport) -> Markup:
    """Coverage at stop and turns: a row for each side."""
    sides = [*_sides(report)]
    top, width = 34, (WIDTH - _NAMES - 40) / 2
    bottom = top + _ROW * len(sides)
    parts = [text(_NAMES - 14, top + _ROW * (row + 0.5) + 4, _cut(side.name), "end") for row, side in enumerate(sides)]
    turns = max(report.max_turns, *(side.metrics["turns"].value or 0 for side in sides))
    for key, left, most, ticks in (
        ("coverage", float(_NAMES), 1.0, [*_SHARES]),
        ("turns", _NAMES + width + 30, turns, [*_ticks(report.max_turns, most=7)]),
    ):
        parts.append(text(left + width / 2, 18, report.titles[key], "strong middle"))
        for tick in ticks:
            x = left + tick / most * width
            parts.append(line(x, top, x, bottom, "grid"))
            parts.append(text(x, bottom + 16, f"{tick:g}", "tick middle"))
        for row, side in enumerate(sides):
            y, found = top + _ROW * (row + 0.5), side.metrics[key]
            if found.low is not None and found.high is not None:
                low, high = (left + min(value, most) / most * width for value in (found.low, found.high))
                parts.append(line(low, y, high, y, f"{side.kind} whisker"))
            said = f"{side.name}, {report.titles[key]}: {interval(found)}"
            parts.append(side.point(left + (found.value or 0) / most * width, y, said))
    return drawing(WIDTH, bottom + 24, "Coverage at stop and turns; the same figures are in the table above", parts)


def outcomes_plot(report: InterviewReport) -> Markup:
    """How the interviews of each side ended, as parts of a bar."""
    sides = [*_sides(report)]
    width = WIDTH - _NAMES - 10
    parts: list[Markup] = []
    for row, side in enumerate(sides):
        y, x = _ROW * row + 4.0, float(_NAMES)
        parts.append(text(_NAMES - 14, y + _ROW / 2 + 1, _cut(side.name), "end"))
        for number, key in enumerate(_OUTCOMES):
            share = side.metrics[key].value or 0.0
            said = f"{report.titles[key]} {share:.0%}"
            part = _part(number, x, y, share * width, _ROW - 8)
            parts.append(Markup("<g>{}<title>{}: {}</title></g>").format(part, side.name, said))
            for label in (said, f"{share:.0%}"):
                if len(label) * _CHARACTER < share * width:
                    parts.append(text(x + share * width / 2, y + _ROW / 2 + 1, label, "middle"))
                    break
            x += share * width
    return drawing(WIDTH, _ROW * len(sides) + 4, "How interviews ended; the same figures are in the table above", parts)


def _sides(report: InterviewReport) -> Iterator[_Side]:
    """The policies, then the logged expert."""
    for number, one in enumerate(report.policies):
        kind = f"s{number % SERIES}"
        yield _Side(name=one.name, kind=kind, number=number, metrics=one.metrics, curve=one.curve)
    logged = report.logged
    yield _Side(name=LOGGED, kind="logged", number=None, metrics=logged.metrics, curve=logged.curve)


def _ticks(turns: int, *, most: int) -> range:
    """Turns that are named at an axis, so many at most."""
    return range(0, turns + 1, -(-(turns + 1) // most))


def _part(number: int, x: float, y: float, width: float, height: float) -> Markup:
    """A part of a bar."""
    return Markup('<rect class="outcome o{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}"/>').format(
        number, x, y, width, height
    )


def _band(points: list[tuple[float, Estimate]], kind: str, up: Scale) -> Markup:
    """Between the ends of the intervals; nothing where there are none."""
    low = [f"{x:.1f},{up(one.low):.1f}" for x, one in points if one.low is not None]
    high = [f"{x:.1f},{up(one.high):.1f}" for x, one in points if one.high is not None]
    return Markup('<polygon class="{} band" points="{}"/>').format(kind, " ".join([*low, *reversed(high)]))


def _cut(name: str) -> str:
    """A name that fits left of a plot."""
    most = int((_NAMES - 14) / _CHARACTER)
    return name if len(name) <= most else f"{name[: most - 1]}…"
