"""Turns observed futures into labels: the extracted information and the continue/stop decision."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import json_repair

from tuner.learn_to_ask.core.domain import Information
from tuner.learn_to_ask.core.records import Decision, Message, Sample, Task
from tuner.learn_to_ask.core.responses import strip_reasoning

_QUOTES = str.maketrans("“”‘’，［］｛｝", "\"\"'',[]{}")
_END_OF_ITEM = re.compile(r"[\"'”’](?=\s*(?:[,\]}]|\Z))")
_NESTED = re.compile(r"\[(?=\s*\[)|\](?=\s*\])")
_NEXT_ITEM = re.compile(r", (?=[^\W\d_][^,:]*: )")
_LISTED = re.compile(r"^\s*(?:[-*•·]|\d{1,3}[.)、])?\s*\**([^:：\n]{1,40})[:：]\**\s*(.+?)\s*$", re.MULTILINE)


def decision_truth(future: Sequence[Message]) -> Decision:
    """`"stop"` when the patient says nothing more in the future, else `"continue"` (spec section 4)."""
    return "continue" if any(message["role"] == "user" for message in future) else "stop"


def info_truth(info_set: Sequence[str] | None) -> str:
    """The extracted items joined by `", "`; `""` when there are none or extraction failed."""
    return ", ".join(info_set or ())


def items_of_truth(text: str) -> list[str]:
    """Splits `info_truth` back into its items; values may hold commas of their own."""
    return [item for item in _NEXT_ITEM.split(text.strip()) if item]


def foreign_fields(info_set: Sequence[str], information: Information) -> list[str]:
    """The fields of extracted items that are none of the domain's, one for each such item.

    Args:
        info_set: `field: value` strings.
        information: What counts in the domain.
    """
    fields = (item.partition(":")[0].strip() for item in info_set)
    return [field for field in fields if information.field_name(field) is None]


def to_task(sample: Sample) -> Task | None:
    """Labels a sample, or returns `None` for one with nothing to reward.

    A sample to continue from is of no use without information to ask for; a sample to stop at needs none
    (spec section 4).
    """
    decision = decision_truth(sample.remaining_chat)
    if decision == "continue" and not sample.info_set:
        return None
    return Task.model_construct(
        cid=sample.cid,
        session_id=sample.session_id,
        diagn=sample.diagn,
        messages=sample.messages,
        decision_truth=decision,
        info_truth=info_truth(sample.info_set),
    )


def parse_info_set(answer: str, information: Information) -> list[str] | None:
    """Reads the extractor's answer: a list of `field: value` strings, in any of the forms that models write.

    Reasoning in `<think>` and prose or code fences around the list are ignored; of several lists the last that is not
    empty counts, of one that is cut off its whole items. JSON, Python's quotes, objects, bullets and numbered lines are
    read. Items with a field that is not asked for, with a vague value, or already seen are dropped, so that the rules
    of the prompt hold whatever the model does. A field's name in another language becomes the domain's own; the value
    stays as it is.

    Args:
        answer: The extractor's whole reply.
        information: What counts in the domain.

    Returns:
        The items in their order, possibly none; `None` when the reply holds no list of `field: value`
        strings and should be tried again.
    """
    items = _items(strip_reasoning(answer), information)
    if items is None:
        return None
    pairs = [(field.strip(), value.strip()) for field, colon, value in map(_split, items) if colon]
    if items and not pairs:
        return None
    kept: dict[str, str] = {}
    for field, value in pairs:
        name = information.field_name(field)
        if name is not None and not information.is_vague(value):
            item = f"{name}: {value}"
            kept.setdefault(item.lower(), item)
    return list(kept.values())


def _split(item: str) -> tuple[str, str, str]:
    """Field, colon and value of an item; the colon may be a full-width one."""
    return item.replace("：", ":", 1).partition(":") if "：" in item.partition(":")[0] else item.partition(":")


def _items(text: str, information: Information) -> list[str] | None:
    """The items of the last list that is not empty; `[]` when all are, `None` without a list."""
    lists = [found for part in _bracketed(text) if (found := _flat(part, information)) is not None]
    if not lists:
        listed = [f"{field.strip(' *`')}: {value}" for field, value in _LISTED.findall(text)]
        asked = [item for item in listed if information.field_name(item.partition(":")[0]) is not None]
        return asked or None
    return next((found for found in reversed(lists) if found), [])


def _bracketed(text: str) -> Iterator[Any]:
    """The values of all outermost brackets in the text, the last one also when it is never closed."""
    depth = start = 0
    for position, character in enumerate(text):
        if character in "[{":
            start = position if depth == 0 else start
            depth += 1
        elif character in "]}" and depth:
            depth -= 1
            if depth == 0:
                yield _value(text[start : position + 1])
    if depth:
        whole = list(_END_OF_ITEM.finditer(text, start))  # what follows the last of them would be made up
        yield _value(text[start : whole[-1].end()]) if whole else None


def _value(text: str) -> Any:
    """A JSON value, or what comes closest to it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return json_repair.loads(text.translate(_QUOTES), skip_json_loads=True)
    except ValueError:  # nested too deeply
        return json_repair.loads(_NESTED.sub("", text))


def _flat(value: object, information: Information) -> list[str] | None:
    """The `field: value` strings of a value, `None` when it is no list of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        parts = [_flat(item, information) for item in value]
        return None if any(part is None for part in parts) else [item for part in parts for item in part or ()]
    if not isinstance(value, dict):
        return None
    if {"field", "value"} <= value.keys():
        return [f"{value['field']}: {value['value']}"]
    items: list[str] = []
    for field, inner in ((str(name), inner) for name, inner in value.items()):
        if isinstance(inner, list) and information.field_name(field) is None:
            items += _flat(inner, information) or ()
        else:
            items += [f"{field}: {each}" for each in (inner if isinstance(inner, list) else [inner])]
    return items
