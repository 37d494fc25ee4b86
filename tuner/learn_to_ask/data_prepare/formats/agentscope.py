"""AgentScope's memories: `state_dict()`, the files of a `JSONSession`, and lists of `Msg.to_dict()`."""

from collections.abc import Iterator
from typing import Any

from tuner.learn_to_ask.data_prepare.formats.chats import session_of_row
from tuner.learn_to_ask.data_prepare.formats.dialogue import Logged, Roles, heard
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, Row
from tuner.learn_to_ask.jsonl import LineError

_HINT = "hint"  # the mark of what an agent tells itself


def is_agentscope(value: object) -> bool:
    """Whether a row looks like a memory, holds one, or is one message of one."""
    return next(_memories(value), None) is not None or _marked(value) is not None


def from_agentscope(row: Row, roles: Roles) -> Converted:
    """The session of a memory. Several memories in one row are the agents of one session: a message counts once.

    A message's speaker is its `name` where that is one of the roles, else its `role`: agents that talk to each other
    all have the role `assistant`. What an agent told itself as a hint is left out.

    Args:
        row: A memory, an object that holds memories, or a list of messages.
        roles: Of the log.

    Raises:
        LineError: When it is no dialogue.
    """
    if _marked(row.value) is not None:
        raise LineError("one message", "is one message; put the messages of a session into one list")
    notes: list[str] = []
    messages: dict[str, Logged] = {}
    for memory in _memories(row.value):
        for message, marks in memory:
            if _HINT in marks:
                notes.append("left out: hint")
                continue
            key = str(message.get("id") or f"message {len(messages)}")
            messages.setdefault(key, _logged(message, roles))
    if _compressed(row.value):
        notes.append("left out: summary of messages that were compressed")
    value = row.value if isinstance(row.value, dict) else {}
    made = session_of_row(row, value, heard(messages.values(), roles))
    return Converted(made.place, made.record, (*made.notes, *notes))


def _logged(message: dict[str, Any], roles: Roles) -> Logged:
    speaker = message["name"] if roles.knows(message["name"]) else message["role"]
    return Logged(role=speaker, content=message["content"], time=message.get("timestamp"))


def _memories(value: object) -> Iterator[list[tuple[dict[str, Any], list[Any]]]]:
    """Every list of messages, with their marks, that is somewhere in a state."""
    if isinstance(value, list):
        items = [_marked(item) for item in value]
        if items and all(item is not None for item in items):
            yield [item for item in items if item is not None]
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _memories(inner)


def _marked(item: object) -> tuple[dict[str, Any], list[Any]] | None:
    """A message and its marks; memories of older versions have none."""
    message, marks = item if isinstance(item, list) and len(item) == 2 else (item, [])
    is_message = isinstance(message, dict) and {"name", "role", "content"} <= message.keys()
    return (message, marks) if is_message and isinstance(marks, list) else None


def _compressed(value: object) -> bool:
    """Whether some memory holds a summary instead of messages."""
    if not isinstance(value, dict):
        return False
    return bool(value.get("_compressed_summary")) or any(_compressed(inner) for inner in value.values())
