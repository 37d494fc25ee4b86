"""Langfuse's exports: traces with or without their observations, sessions, and tables of either."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tuner.learn_to_ask.data_prepare.formats.dialogue import Logged, Roles, logged_messages
from tuner.learn_to_ask.data_prepare.formats.rows import Outcome, Refused, Row
from tuner.learn_to_ask.data_prepare.formats.spans import Span, sessions_of
from tuner.learn_to_ask.jsonl import LineError

# Observations that talk; the others are tools, retrievals and the like.
_TALKING = ("GENERATION", "AGENT", None)


def is_langfuse(value: object) -> bool:
    """Whether a row looks like something that Langfuse exports."""
    if not isinstance(value, dict):
        return False
    if "traces" in value or "observations" in value or (isinstance(value.get("data"), list) and "meta" in value):
        return True
    return {"id", "input", "output"} <= value.keys()


def from_langfuse(rows: Iterable[Row], roles: Roles) -> Iterator[Outcome]:
    """The sessions of traces; the exports of one session may stand in any order.

    Args:
        rows: A trace, an observation, a session or a page of the API each.
        roles: Of the log.
    """
    spans: list[Span] = []
    for row in rows:
        for item in _spans(row.value, row.place, session=None):
            if isinstance(item, Refused):
                yield item
            else:
                spans.append(item)
    yield from sessions_of(spans, roles)


def _spans(value: object, place: str, *, session: str | None) -> Iterator[Span | Refused]:
    """The spans of a row, whatever it holds."""
    if not isinstance(value, dict):
        yield Refused(place, "bad trace", "a trace or observation is no object")
    elif isinstance(value.get("data"), list) and "meta" in value:
        for item in value["data"]:
            yield from _spans(item, place, session=session)
    elif isinstance(value.get("traces"), list):
        for item in value["traces"]:
            yield from _spans(item, place, session=_text(value.get("id")))
    elif isinstance(value.get("trace"), dict):
        yield from _spans({**value["trace"], "observations": value.get("observations")}, place, session=session)
    else:
        try:
            span = _span(value, place, session=session)
        except LineError as error:
            yield Refused(place, error.kind, error.reason)
            return
        yield span
        observations = value.get("observations")
        for item in observations if isinstance(observations, list) else ():
            if isinstance(item, dict):  # lists of the API hold ids only
                yield from _spans({"traceId": span.trace, **item}, place, session=span.session)


def _span(value: dict[str, Any], place: str, *, session: str | None) -> Span:
    """A trace or an observation; names are written `traceId` in the API and `trace_id` in exported tables."""
    trace = _text(_get(value, "traceId"))
    own = _text(value.get("id"))
    if own is None:
        raise LineError("no id", "a trace or observation without an id")
    talks = trace is None or value.get("type") in _TALKING
    return Span(
        place=place,
        trace=trace or own,
        id=own,
        parent=None if trace is None else _text(_get(value, "parentObservationId")) or trace,
        session=_text(_get(value, "sessionId")) or session,
        start=_get(value, "startTime") or value.get("timestamp"),
        asked=messages_in(value.get("input"), speaker="user") if talks else (),
        answered=messages_in(value.get("output"), speaker="assistant") if talks else (),
    )


def messages_in(value: object, *, speaker: str) -> tuple[Logged, ...]:
    """The messages of an input or output; none where it holds something else.

    Args:
        value: Text, a message, a list of messages, an object with `messages` or `choices`, or the JSON of one of them.
        speaker: The role of a text that names none.
    """
    if isinstance(value, str):
        return _of_text(value, speaker)
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        return tuple(logged_messages(value))
    if not isinstance(value, dict):
        return ()
    if "content" in value:
        return tuple(logged_messages([{"role": speaker, **value}]))
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return messages_in(
        value.get("messages", first.get("message") if isinstance(first, dict) else None), speaker=speaker
    )


def _of_text(text: str, speaker: str) -> tuple[Logged, ...]:
    """A text is what somebody said, unless it is JSON with messages in it."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return messages_in(json.loads(text), speaker=speaker)
        except (ValueError, RecursionError):
            pass
    return (Logged(role=speaker, content=text),) if text.strip() else ()


def _get(value: dict[str, Any], name: str) -> Any:
    """A value by its name in the API or in exported tables."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return value.get(name, value.get(snake))


def _text(value: object) -> str | None:
    return str(value) if value not in (None, "") else None
