"""OpenTelemetry spans of language models: OTLP as JSON, and the spans that Python's console exporter prints."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tuner.learn_to_ask.data_prepare.formats.dialogue import Logged, Roles, logged_messages
from tuner.learn_to_ask.data_prepare.formats.rows import Outcome, Refused, Row
from tuner.learn_to_ask.data_prepare.formats.spans import Span, sessions_of
from tuner.learn_to_ask.jsonl import LineError

_SESSION_KEYS = ("gen_ai.conversation.id", "session.id", "langfuse.session.id")
# The convention of OpenTelemetry, and the numbered keys of OpenLLMetry and OpenInference.
_ASKED, _ANSWERED = "gen_ai.input.messages", "gen_ai.output.messages"
_NUMBERED = re.compile(
    r"(?P<side>gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages)"
    r"\.(?P<number>\d+)\.(?:message\.)?(?P<field>role|content)"
)
_NUMBERED_ASKED = ("gen_ai.prompt", "llm.input_messages")


def is_otel(value: object) -> bool:
    """Whether a row looks like OpenTelemetry spans."""
    return isinstance(value, dict) and ("resourceSpans" in value or ("attributes" in value and bool(_ids(value)[1])))


def from_otel(rows: Iterable[Row], roles: Roles) -> Iterator[Outcome]:
    """The sessions of spans; a session is a conversation, or a trace where spans name none.

    Args:
        rows: A span, or an OTLP request with many, each.
        roles: Of the log.
    """
    spans: list[Span] = []
    for row in rows:
        for item in _spans(row):
            if isinstance(item, Refused):
                yield item
            else:
                spans.append(item)
    yield from sessions_of(spans, roles)


def _spans(row: Row) -> Iterator[Span | Refused]:
    """Every span of a row."""
    for value in _span_values(row.value):
        try:
            yield _span(value, row.place)
        except LineError as error:
            yield Refused(row.place, error.kind, error.reason)


def _span_values(value: Any) -> Iterator[Any]:
    """What a row holds in the places of spans."""
    if isinstance(value, dict) and "resourceSpans" in value:
        for resource in _list(value["resourceSpans"]):
            for scope in _list(resource, "scopeSpans"):
                yield from _list(scope, "spans")
    else:
        yield value


def _list(value: Any, key: str | None = None) -> list[Any]:
    """A list, or the one in an object; what is none of it is an item by itself, to be refused as a span."""
    if isinstance(value, dict) and key is not None:
        value = value.get(key, [])
    return value if isinstance(value, list) else [value]


def _span(value: object, place: str) -> Span:
    if not isinstance(value, dict):
        raise LineError("bad span", "a span is no object, or not where OTLP has it")
    trace, own, parent = _ids(value)
    if not trace or not own:
        raise LineError("no id", "a span without trace id and span id")
    attributes = _attributes(value.get("attributes"))
    session = next((attributes[key] for key in _SESSION_KEYS if attributes.get(key) not in (None, "")), None)
    numbered = _numbered(attributes)
    return Span(
        place=place,
        trace=trace,
        id=own,
        parent=parent or None,
        session=None if session is None else str(session),
        start=value.get("startTimeUnixNano", value.get("start_time")),
        asked=_messages(attributes.get(_ASKED), numbered, asked=True),
        answered=_messages(attributes.get(_ANSWERED), numbered, asked=False),
    )


def _ids(value: dict[str, Any]) -> tuple[str, str, str]:
    """Trace, span and parent id, `""` where there is none; OTLP and the console exporter name them differently."""
    context = value.get("context")
    if isinstance(context, dict):
        found = (context.get("trace_id"), context.get("span_id"), value.get("parent_id"))
    else:
        found = (value.get("traceId"), value.get("spanId"), value.get("parentSpanId"))
    trace, own, parent = (str(part or "") for part in found)
    return trace, own, parent


def _attributes(value: object) -> dict[str, Any]:
    """Attributes by key, their values as plain JSON."""
    if isinstance(value, dict):
        return value
    pairs = value if isinstance(value, list) else []
    return {str(pair["key"]): _plain(pair.get("value")) for pair in pairs if isinstance(pair, dict) and "key" in pair}


def _plain(value: object) -> Any:
    """OTLP's typed value as plain JSON."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("arrayValue"), dict):
        return [_plain(item) for item in value["arrayValue"].get("values", ())]
    if isinstance(value.get("kvlistValue"), dict):
        return _attributes(value["kvlistValue"].get("values"))
    return next(iter(value.values()), None)


def _messages(value: object, numbered: dict[tuple[bool, int], dict[str, Any]], *, asked: bool) -> tuple[Logged, ...]:
    """The messages that went in or came out; structured ones may be a JSON string."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise LineError("bad messages", "the messages of a span are neither a list nor the JSON of one") from error
    if value is None:
        value = [message for (side, _), message in sorted(numbered.items()) if side == asked]
    return tuple(logged_messages(value))


def _numbered(attributes: dict[str, Any]) -> dict[tuple[bool, int], dict[str, Any]]:
    """Messages whose fields are an attribute each, by whether they went in and their number."""
    found: dict[tuple[bool, int], dict[str, Any]] = {}
    for key, value in attributes.items():
        match = _NUMBERED.fullmatch(key)
        if match:
            place = (match["side"] in _NUMBERED_ASKED, int(match["number"]))
            found.setdefault(place, {})[match["field"]] = value
    return found
