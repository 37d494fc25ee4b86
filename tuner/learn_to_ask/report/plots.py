"""The page's plots as SVG: colours and fonts come from its style sheet, so that they follow the reader's theme."""

from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup

from tuner.learn_to_ask.evaluation.bootstrap import Estimate
from tuner.learn_to_ask.report.drawing import SERIES, WIDTH, drawing, line, marker, text
from tuner.learn_to_ask.report.results import Report
from tuner.learn_to_ask.report.tables import interval, share_of

MAX_REWARD = 4.0


def metrics_plot(report: Report) -> Markup:
    """Every metric of every evaluation as a dot with its interval; the reward has a scale of its own."""
    scores = [key for key in report.titles if key != "total_reward"]
    upper, middle = _panel(report, scores, top=8, ticks=(0, 0.25, 0.5, 0.75, 1))
    lower, bottom = _panel(report, ["total_reward"], top=middle + 34, ticks=(0, 1, 2, 3, 4))
    label = "Every metric with its 95% interval; the same figures are in the table above"
    return drawing(WIDTH, bottom + 26, label, [*upper, *lower])


def _panel(report: Report, keys: Sequence[str], *, top: float, ticks: Sequence[float]) -> tuple[list[Markup], float]:
    """One scale with its metrics as rows, and where it ends; the last tick is the end of the scale."""
    left, count = 290, len(report.evaluations)
    row = 16 + 12 * count
    bottom = top + row * len(keys)

    def scale(value: float) -> float:
        return left + value / ticks[-1] * (WIDTH - left - 20)

    parts: list[Markup] = []
    for tick in ticks:
        parts.append(line(scale(tick), top, scale(tick), bottom, "grid"))
        parts.append(text(scale(tick), bottom + 15, f"{tick:g}", "tick middle"))
    for place, key in enumerate(keys):
        middle = top + row * (place + 0.5)
        parts.append(text(left - 14, middle + 4, report.titles[key], "end"))
        for number, one in enumerate(report.evaluations):
            across = middle + 12 * (number - (count - 1) / 2)
            label = f"{one.name}, {report.titles[key]}"
            parts.extend(dot(one.metrics[key], number, label, scale, across=across, horizontal=True))
    return parts, bottom


def depth_plot(report: Report) -> Markup:
    """Total reward by turn depth, with intervals."""
    height, left, bottom = 300, 50, 50
    labels = [group.label for group in report.evaluations[0].by_depth]
    step = (WIDTH - left - 20) / len(labels)
    apart = min(14, 0.8 * step / len(report.evaluations))

    def scale(value: float) -> float:
        return height - bottom - value / MAX_REWARD * (height - bottom - 12)

    user = report.evaluations[0].user
    parts: list[Markup] = []
    for tick in range(5):
        parts.append(line(left, scale(tick), WIDTH - 20, scale(tick), "grid"))
        parts.append(text(left - 8, scale(tick) + 4, str(tick), "tick end"))
    for place, label in enumerate(labels):
        parts.append(text(left + step * (place + 0.5), height - bottom + 18, label, "tick middle"))
    parts.append(text((left + WIDTH) / 2, height - 8, f"{user} turns in the context", "middle"))
    for number, one in enumerate(report.evaluations):
        shift = apart * (number - (len(report.evaluations) - 1) / 2)
        points = [
            (left + step * (place + 0.5) + shift, group.metrics["total_reward"], group.label)
            for place, group in enumerate(one.by_depth)
        ]
        path = " ".join(f"{x:.1f},{scale(found.value):.1f}" for x, found, _ in points if found.value is not None)
        parts.append(Markup('<polyline class="s{} path" points="{}"/>').format(number % SERIES, path))
        for x, found, label in points:
            parts.extend(dot(found, number, f"{one.name}, {label} {user} turns", scale, across=x, horizontal=False))
    return drawing(WIDTH, height, "Total reward by turn depth; the same figures are in the table below", parts)


def confusion_plot(report: Report) -> Markup:
    """For each evaluation, what rollouts did against what was right."""
    cell, high, left, gap = 120, 56, 112, 40
    block = left + 2 * cell + gap
    columns = min(2, len(report.evaluations))
    parts: list[Markup] = []
    for number, one in enumerate(report.evaluations):
        x, y = block * (number % columns), 190 * (number // columns)
        parts.append(text(x + left + cell, y + 18, one.name, "strong middle"))
        matrix = one.confusion
        for column, title in enumerate(("continued", "stopped")):
            parts.append(text(x + left + cell * (column + 0.5), y + 40, title, "tick middle"))
        for row, (truth, counts) in enumerate(
            (
                ("continue", (matrix.continue_continue, matrix.continue_stop)),
                ("stop", (matrix.stop_continue, matrix.stop_stop)),
            )
        ):
            top = y + 50 + high * row
            parts.append(text(x + left - 10, top + high / 2 + 4, f"right: {truth}", "tick end"))
            for column, count in enumerate(counts):
                share = count / sum(counts) if sum(counts) else 0.0
                kind = "right" if column == row else "wrong"
                parts.append(
                    Markup(
                        '<rect class="cell {}" x="{:.1f}" y="{:.1f}" width="{}" height="{}" fill-opacity="{:.2f}"/>'
                    ).format(kind, x + left + cell * column + 1, top + 1, cell - 2, high - 2, 0.04 + 0.31 * share)
                )
                middle = x + left + cell * (column + 0.5)
                parts.append(text(middle, top + high / 2 + 4, share_of(count, sum(counts)), "middle"))
    height = 190 * -(-len(report.evaluations) // columns)
    return drawing(
        block * columns - gap + 4, height, "Continue and stop; the same figures are in the table below", parts
    )


def dot(
    estimate: Estimate, number: int, label: str, scale: Callable[[float], float], *, across: float, horizontal: bool
) -> Iterator[Markup]:
    """A marker with its interval; nothing where there is no value."""
    if estimate.value is None:
        return
    if estimate.low is not None and estimate.high is not None:
        low, high = scale(estimate.low), scale(estimate.high)
        ends = (low, across, high, across) if horizontal else (across, low, across, high)
        yield line(*ends, f"s{number % SERIES} whisker")
    x, y = (scale(estimate.value), across) if horizontal else (across, scale(estimate.value))
    yield Markup("<g>{}<title>{}: {}</title></g>").format(marker(x, y, number), label, interval(estimate))
