"""Chats with all messages in one row: OpenAI's `messages`, ShareGPT's `conversations`."""

from typing import Any

from tuner.learn_to_ask.data_prepare.formats.dialogue import Heard, Logged, Roles, heard, logged_messages, session_of
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, Row
from tuner.learn_to_ask.jsonl import LineError

_ID_KEYS = ("session_id", "conversation_id", "chat_id", "id")


def is_openai(value: object) -> bool:
    """Whether a row looks like a chat in the form of OpenAI's API."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in value)
    return isinstance(value, dict) and "messages" in value and not value.keys() & {"cid", "task_id"}


def is_sharegpt(value: object) -> bool:
    """Whether a row looks like a ShareGPT conversation."""
    return isinstance(value, dict) and ("conversations" in value or "conversation" in value)


def from_openai(row: Row, roles: Roles) -> Converted:
    """The session of a chat.

    Args:
        row: The list of messages, or an object with `messages`, and maybe an id and `diagn`.
        roles: Of the log.

    Raises:
        LineError: When it is no dialogue.
    """
    value = row.value if isinstance(row.value, dict) else {"messages": row.value}
    return session_of_row(row, value, heard(logged_messages(value["messages"]), roles))


def from_sharegpt(row: Row, roles: Roles) -> Converted:
    """The session of a conversation.

    Args:
        row: With `conversations`, a list of `from` and `value`, and maybe an id and `diagn`.
        roles: Of the log.

    Raises:
        LineError: When it is no dialogue.
    """
    items = row.value.get("conversations", row.value.get("conversation"))
    if not isinstance(items, list) or not all(isinstance(item, dict) and "from" in item for item in items):
        raise LineError("bad conversations", "conversations are no list of objects with from and value")
    messages = [Logged(role=item["from"], content=item.get("value"), time=item.get("timestamp")) for item in items]
    return session_of_row(row, row.value, heard(messages, roles))


def session_of_row(row: Row, value: dict[str, Any], messages: list[Heard]) -> Converted:
    """The session that stands in one row, called after its place where it has no id.

    Args:
        row: Where it stands.
        value: Holds its id and `diagn`.
        messages: In the order of the log.

    Raises:
        LineError: When it is no dialogue.
    """
    found = next((value[key] for key in _ID_KEYS if value.get(key) not in (None, "")), None)
    made = session_of(row.name if found is None else found, value.get("diagn"), messages, place=row.place)
    notes = ("named after its place: session",) if found is None else ()
    return Converted(made.place, made.record, (*made.notes, *notes))
