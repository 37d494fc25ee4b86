"""The report of a curation as one HTML page: what was dropped and why, distributions, examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from tuner.learn_to_ask.core.records import Message, Session
from tuner.learn_to_ask.data_prepare.curation.distributions import Distribution
from tuner.learn_to_ask.report.drawing import WIDTH, drawing, line, text
from tuner.learn_to_ask.report.html_file import html_file

_TEMPLATE = Path(__file__).parent / "page.html"
_MESSAGES, _CHARACTERS = 40, 600  # of an example; what is longer is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A session that was dropped.

    Attributes:
        session_id: Of the session.
        said: What it was dropped for.
        messages: The first of it, masked where personal data are masked, long ones cut.
        left_out: How many messages there are besides.
    """

    session_id: str
    said: str
    messages: list[Message]
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonReport:
    """What was dropped for one reason.

    Attributes:
        key: Name of the reason.
        title: For reading.
        threshold: Of the rule, for reading; `off` where it is switched off.
        dropped: Sessions.
        examples: Up to ten of them.
    """

    key: str
    title: str
    threshold: str
    dropped: int
    examples: list[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationReport:
    """All that the page shows.

    Attributes:
        source: The file that was curated.
        speakers: Role -> what the one who speaks is called.
        before: Sessions in it.
        after: Sessions that were kept.
        remarks: Label and value of what else happened.
        reasons: In the order in which they are looked for.
        distributions: Of some figures.
        diagnoses: Diagnosis, sessions before and after, the most frequent first.
        more_diagnoses: How many others there are.
    """

    source: str
    speakers: dict[str, str]
    before: int
    after: int
    remarks: list[tuple[str, object]]
    reasons: list[ReasonReport]
    distributions: list[Distribution]
    diagnoses: list[tuple[str, int, int]]
    more_diagnoses: int


def example_of(session: Session, said: str, *, mask: Callable[[Session], Session]) -> Example:
    """A dropped session, as much of it as the page shows.

    Args:
        session: The whole session.
        said: What it was dropped for.
        mask: Takes personal data out. It gets twice of what is shown of a message, so that nothing is cut in half.
    """
    first = session.messages[:_MESSAGES]
    beginnings = [{**message, "content": message["content"][: 2 * _CHARACTERS]} for message in first]
    masked = mask(session.model_copy(update={"messages": beginnings})).messages
    messages: list[Message] = [
        {"role": message["role"], "content": _cut(shown["content"], of=len(message["content"]))}
        for message, shown in zip(first, masked, strict=True)
    ]
    left_out = len(session.messages) - len(messages)
    return Example(session_id=session.session_id, said=said, messages=messages, left_out=left_out)


def curation_page(report: CurationReport) -> str:
    """The page; it needs no script."""
    return html_file(
        _TEMPLATE,
        report=report,
        plots=[(each, _plot(each)) for each in report.distributions],
        speakers=report.speakers,
    )


def _plot(distribution: Distribution) -> Markup:
    """Sessions in each bin, before as a frame and after as what fills it."""
    high, left, bottom = 180, 60, 190
    step = (WIDTH - left) / len(distribution.labels)
    most = max(distribution.before)
    parts: list[Markup] = []
    for tick in sorted({0, most // 2, most}):
        y = bottom - tick / most * (high - 20)
        parts += [line(left, y, WIDTH, y, "grid"), text(left - 8, y + 4, f"{tick:,}", "tick end")]
    every = -(-len(distribution.labels) // 8)  # labels that fit
    bins = zip(distribution.labels, distribution.before, distribution.after, strict=True)
    for place, (label, before, after) in enumerate(bins):
        x = left + step * place
        bars = [_bar(x, step, bottom, count / most * (high - 20), kind) for count, kind in _heights(before, after)]
        title = Markup("<title>{}: {} before, {} after</title>").format(label, f"{before:,}", f"{after:,}")
        parts.append(Markup("<g>{}{}</g>").format(title, Markup("").join(bars)))
        if place % every == 0:
            parts.append(text(x + step / 2, bottom + 16, label, "tick middle"))
    return drawing(WIDTH, bottom + 24, f"{distribution.title}, before and after", parts)


def _heights(before: int, after: int) -> Sequence[tuple[int, str]]:
    """The two bars of a bin."""
    return (before, "cell wrong"), (after, "cell right")


def _bar(x: float, step: float, bottom: float, height: float, kind: str) -> Markup:
    """One bar."""
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x + 1, bottom - height, max(1.0, step - 2), height
    )


def _cut(content: str, *, of: int) -> str:
    """The beginning of a message of so many characters."""
    return content if of <= _CHARACTERS else f"{content[:_CHARACTERS]} … ({of:,} characters)"
