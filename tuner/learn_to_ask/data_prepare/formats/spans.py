"""Sessions out of spans: one span is one turn or one call of a model, and often repeats all that was said before."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tuner.learn_to_ask.data_prepare.formats.dialogue import Heard, Logged, Roles, Side, heard, moment, session_of
from tuner.learn_to_ask.data_prepare.formats.rows import Outcome, PassedOver, Refused
from tuner.learn_to_ask.jsonl import LineError


@dataclass(frozen=True, slots=True)
class Span:
    """A trace, or a part of one, as Langfuse and OpenTelemetry have them.

    Attributes:
        place: Where it stands.
        trace: Id of its trace.
        id: Of the span in its trace.
        parent: Id of the span that it is a part of, `None` for the outermost.
        session: Id of the session, `None` where the span does not say.
        start: When it began.
        asked: The messages that went in.
        answered: The messages that came out.
    """

    place: str
    trace: str
    id: str
    parent: str | None
    session: str | None
    start: object
    asked: tuple[Logged, ...]
    answered: tuple[Logged, ...]


def sessions_of(spans: Sequence[Span], roles: Roles) -> Iterator[Outcome]:
    """The sessions of some spans, in the order in which they begin in the file.

    The spans of a session, in the order of their starts, make its dialogue. Of nested spans the outermost with messages
    counts. What a span repeats of the messages before it is said once.

    Args:
        spans: All of a file; those of a trace without a session are a session.
        roles: Of the log.
    """
    session_of_trace = {span.trace: span.session for span in reversed(spans) if span.session is not None}
    by_session: dict[str, list[Span]] = {}
    for span in spans:
        by_session.setdefault(session_of_trace.get(span.trace, span.trace), []).append(span)
    for session, members in by_session.items():
        turns = list(_outermost(members))
        yield from [PassedOver("spans inside others or without messages")] * (len(members) - len(turns))
        if not turns:
            yield Refused(members[0].place, "no messages", f"session {session!r}: no span holds messages")
            continue
        try:
            yield session_of(session, None, _dialogue(turns, roles), place=turns[0].place)
        except LineError as error:
            yield Refused(turns[0].place, error.kind, f"session {session!r}: {error.reason}")


def _outermost(spans: Iterable[Span]) -> Iterator[Span]:
    """The spans with messages that are not inside of another one with messages."""
    by_id = {(span.trace, span.id): span for span in spans}
    for span in by_id.values():
        if not (span.asked or span.answered):
            continue
        above, seen = by_id.get((span.trace, span.parent or "")), {span.id}
        while above is not None and above.id not in seen and not (above.asked or above.answered):
            seen.add(above.id)
            above = by_id.get((above.trace, above.parent or ""))
        if above is None or above.id in seen:
            yield span


def _dialogue(turns: Sequence[Span], roles: Roles) -> list[Heard]:
    """What the spans of a session say, each message once.

    Raises:
        LineError: When a span tells another history than those before it.
    """
    heard_turns = [(turn.place, *_heard_turn(turn, roles)) for turn in _by_start(turns)]
    # Where some span repeats the doctor's words, all of them repeat the history, as calls of a model do.
    tells_history = any(_says(asked, "assistant") for _, asked, _ in heard_turns)
    said: list[Heard] = []
    for place, asked, answered in heard_turns:
        old = _repeated(said, asked or answered)
        if tells_history and not old and said and any(item.message for item in asked):
            kept = _without_last_answer(said)
            old = _repeated(kept, asked)
            if not old:
                raise LineError("histories differ", f"the history in {place} is not what was logged before it")
            said = [*kept, Heard(None, None, ("answer that another one replaced",))]
        said += [*asked, *answered][old:]
    return said


def _heard_turn(turn: Span, roles: Roles) -> tuple[list[Heard], list[Heard]]:
    """What was asked and answered; some log the whole history as the answer."""
    asked, answered = heard(turn.asked, roles), heard(turn.answered, roles)
    return (answered, []) if _says(answered, "user") else (asked, answered)


def _says(items: Iterable[Heard], side: Side) -> bool:
    """Whether a side says something."""
    return any(item.message is not None and item.message["role"] == side for item in items)


def _without_last_answer(said: Sequence[Heard]) -> list[Heard]:
    """What was said up to the patient's last message."""
    return list(said[: 1 + max((place for place, item in enumerate(said) if _says([item], "user")), default=-1)])


def _by_start(turns: Sequence[Span]) -> list[Span]:
    """In the order of their starts; as they stand where nobody says when."""
    if all(turn.start is None for turn in turns):
        return list(turns)
    try:
        return sorted(turns, key=lambda turn: moment(turn.start))
    except TypeError as error:
        raise LineError("bad time", "times with and without a time zone, or as numbers, in one session") from error


def _repeated(said: Sequence[Heard], new: Sequence[Heard]) -> int:
    """How many of the new items only repeat the end of what was said, or all of it."""
    before = [item.message for item in said if item.message]
    places = [place for place, item in enumerate(new, start=1) if item.message]
    now = [item.message for item in new if item.message]
    for length in range(min(len(before), len(now)), 0, -1):
        if before[-length:] == now[:length]:
            return places[length - 1]
    return 0
