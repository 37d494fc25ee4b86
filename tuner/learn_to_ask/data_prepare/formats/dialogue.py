"""What makes a session of any log: who speaks, what counts as text, in which order, and what is no dialogue."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tuner.learn_to_ask.core.records import Message, Session
from tuner.learn_to_ask.data_prepare.formats.rows import Converted
from tuner.learn_to_ask.jsonl import LineError, as_record

Side = Literal["user", "assistant"]

USER_ROLES = ("user", "human")
ASSISTANT_ROLES = ("assistant", "gpt", "ai")
IGNORED_ROLES = ("system", "developer", "tool", "function", "function_call", "observation")
_TEXT_PARTS = ("text", "input_text", "output_text")
_NUMBER = re.compile(r"\d+(\.\d*)?")
_TIME_KEYS = ("timestamp", "time", "created_at", "create_time")


@dataclass(frozen=True, slots=True)
class Roles:
    """Which names of a log are the patient, which the doctor, and which are left out.

    Attributes:
        user: Names of the patient's side, in lower case; that of the log does not matter.
        assistant: Names of the doctor's side.
        ignored: Names whose messages are no part of the dialogue.
    """

    user: frozenset[str] = frozenset(USER_ROLES)
    assistant: frozenset[str] = frozenset(ASSISTANT_ROLES)
    ignored: frozenset[str] = frozenset(IGNORED_ROLES)

    def knows(self, name: object) -> bool:
        """Whether the name is one of them."""
        return _folded(name) in self.user | self.assistant | self.ignored

    def side(self, name: object) -> Side | None:
        """The side that speaks, `None` for a name that is ignored.

        Raises:
            LineError: For a name that is none of them.
        """
        folded = _folded(name)
        if folded in self.user:
            return "user"
        if folded in self.assistant:
            return "assistant"
        if folded in self.ignored:
            return None
        flags = "--user_roles, --assistant_roles or --ignored_roles"
        raise LineError("unknown role", f"unknown role {name!r}; name it in {flags}")


@dataclass(frozen=True, slots=True)
class Logged:
    """One message as some log holds it.

    Attributes:
        role: The name of the speaker or of its role.
        content: Text, content parts, or nothing.
        time: When it was said: ISO 8601, a number since some epoch, a `datetime`; `None` where the log does not say.
        calls_tool: Whether it calls tools.
    """

    role: object
    content: object
    time: object = None
    calls_tool: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What becomes of a logged message.

    Attributes:
        message: The message of the dialogue, `None` when nothing is left of it.
        time: As logged.
        notes: What was left out.
    """

    message: Message | None
    time: object
    notes: tuple[str, ...]


def logged_messages(value: object) -> list[Logged]:
    """Messages in the form of OpenAI's API, `role` and `content` (or OpenTelemetry's `parts`) each.

    Raises:
        LineError: When it is no list of such objects.
    """
    if not isinstance(value, list):
        raise LineError("bad messages", f"messages are {_type(value)}, not a list")
    for index, item in enumerate(value):
        if not isinstance(item, dict) or not ("role" in item or "type" in item):
            raise LineError("bad messages", f"messages.{index}: has no role")
    return [
        Logged(
            role=item.get("role", item.get("type")),
            content=item.get("content", item.get("parts")),
            time=next((item[key] for key in _TIME_KEYS if item.get(key) is not None), None),
            calls_tool=bool(item.get("tool_calls") or item.get("function_call")),
        )
        for item in value
    ]


def heard(messages: Iterable[Logged], roles: Roles) -> list[Heard]:
    """Who said what, message by message: roles become two sides, content becomes text.

    Of content parts the text is joined by line breaks; images, files, reasoning, tool calls and their results are left
    out and noted, and so are messages of ignored roles and messages without any text. The doctor's end marker
    `<med_search>` is text like any other.

    Args:
        messages: Of one session.
        roles: Of the log.

    Raises:
        LineError: For an unknown role or content that is no text.
    """
    return [_heard(message, roles) for message in messages]


def _heard(message: Logged, roles: Roles) -> Heard:
    side = roles.side(message.role)
    if side is None:
        return Heard(None, message.time, (f"{_folded(message.role)} message",))
    text, notes = _text(message.content)
    if message.calls_tool:
        notes.append("tool call")
    if not text.strip():
        return Heard(None, message.time, tuple(notes or ["empty message"]))
    return Heard({"role": side, "content": text}, message.time, tuple(notes))


def dialogue_of(value: object, roles: Roles) -> tuple[list[Message], tuple[str, ...]]:
    """The dialogue in a list of messages that is in order, and notes on what was left out.

    Args:
        value: As `logged_messages` takes it.
        roles: Of the log.

    Raises:
        LineError: When it is no such list, or for an unknown role or content that is no text.
    """
    all_heard = heard(logged_messages(value), roles)
    return [each.message for each in all_heard if each.message is not None], left_out(all_heard)


def left_out(messages: Iterable[Heard]) -> tuple[str, ...]:
    """A note for everything that was left out of messages."""
    return tuple(f"left out: {note}" for message in messages for note in message.notes)


def plain_diagn(value: Any) -> Any:
    """A diagnosis as it stands; `None` for a number that is none, which pandas writes for nothing.

    Raises:
        LineError: When it cannot be written as JSON, as a date of a Parquet file cannot.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LineError("bad diagn", f"diagn is {_type(value)} that JSON cannot hold; make it text") from error
    return value


def session_of(session_id: object, diagn: Any, messages: Sequence[Heard], *, place: str) -> Converted:
    """A session of what was heard, in the order of its times.

    Args:
        session_id: A number or a string.
        diagn: The diagnosis as it stands in the log, `None` without one.
        messages: In the order of the log.
        place: Where the log stands.

    Raises:
        LineError: When no dialogue is left, only one side speaks, or the times give no order.
    """
    notes = left_out(messages)
    said = [message for message in messages if message.message is not None]
    ordered = in_order(said)
    if ordered != said:
        notes = (*notes, "put in the order of its times: session")
    dialogue = [message.message for message in ordered if message.message is not None]
    check_alternates(dialogue)
    record = as_record({"session_id": session_id, "diagn": plain_diagn(diagn), "messages": dialogue}, Session)
    return Converted(place, record, notes)


def check_alternates(messages: Sequence[Message]) -> None:
    """Makes sure that both sides speak.

    Raises:
        LineError: Otherwise.
    """
    sides = {message["role"] for message in messages}
    if not sides:
        raise LineError("no messages", "no message with any text is left")
    if len(sides) == 1:
        (side,) = sides
        names = "the patient (user)" if side == "user" else "the doctor (assistant)"
        raise LineError("one side only", f"roles never alternate: only {names} speaks")


def in_order(messages: Sequence[Heard]) -> list[Heard]:
    """The messages by their times; those said at the same time, and those of a log without times, stay as they are.

    Raises:
        LineError: When only some have a time, or times cannot be compared.
    """
    times = [None if message.time == "" else message.time for message in messages]
    if all(time is None for time in times):
        return list(messages)
    if any(time is None for time in times):
        missing = times.index(None)
        raise LineError("no time", f"message {missing} has no time, others of the session have one")
    moments = [moment(time) for time in times]
    try:
        order = sorted(range(len(messages)), key=lambda index: moments[index])
    except TypeError as error:
        mixed = "times with and without a time zone, or as numbers, in one session"
        raise LineError("bad time", mixed) from error
    return [messages[index] for index in order]


def moment(time: object) -> datetime | float:
    """A time as something that sorts.

    Raises:
        LineError: When it is neither ISO 8601 nor a number.
    """
    if isinstance(time, datetime):
        return time
    if isinstance(time, int | float) and not isinstance(time, bool) and math.isfinite(time):
        return time
    if isinstance(time, str):
        text = time.strip()
        try:
            return float(text) if _NUMBER.fullmatch(text) else datetime.fromisoformat(text)
        except ValueError:
            pass
    raise LineError("bad time", f"time {str(time)[:40]!r} is neither a number nor ISO 8601, 2026-03-01T10:00:00")


def _text(content: object) -> tuple[str, list[str]]:
    """The text of some content, and the parts of it that are none."""
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    texts: list[str] = []
    others: list[str] = []
    for part in [content] if isinstance(content, dict) else content if isinstance(content, list) else [None]:
        text, other = _part(part)
        if text is None and not other:
            raise LineError("bad content", f"content is {_type(content)}, not text nor a list of parts")
        texts += [text] if text is not None else []
        others += [other] if other else []
    return "\n".join(texts), others


def _part(part: object) -> tuple[str | None, str]:
    """The text of a content part, or what it is instead."""
    if isinstance(part, str):
        return part, ""
    if not isinstance(part, dict):
        return None, ""
    kind = part.get("type", "text")
    text = part.get("text", part.get("content")) if kind in _TEXT_PARTS else None
    return (text, "") if isinstance(text, str) else (None, f"{kind} part"[:40])


def _folded(name: object) -> str:
    return name.strip().casefold() if isinstance(name, str) else ""


def _type(value: object) -> str:
    return {"NoneType": "null", "dict": "an object", "list": "a list", "str": "text"}.get(
        type(value).__name__, f"of type {type(value).__name__}"
    )
