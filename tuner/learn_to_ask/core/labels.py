"""Turns observed futures into labels: the extracted information and the continue/stop decision."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import json_repair

from tuner.learn_to_ask.core.records import Decision, Message, Sample, Task
from tuner.learn_to_ask.core.responses import strip_reasoning

# The only clinical attributes that count as information (spec section 3). Models write them with or
# without a leading "symptom", and the published data calls the nature of a symptom its quality.
INFO_FIELDS = frozenset({"symptom", "nature", "quality", "location", "severity", "trigger"})
_CHINESE_FIELDS = {
    "symptom": ("症状", "主要症状"),
    "symptom nature": ("性质", "症状性质", "症状特点"),
    "symptom location": ("部位", "位置", "症状部位", "症状位置"),
    "symptom severity": ("程度", "严重程度", "症状程度", "症状严重程度"),
    "symptom trigger": ("诱因", "触发因素", "症状诱因", "症状触发因素"),
}
_ENGLISH_FIELD = {chinese: english for english, names in _CHINESE_FIELDS.items() for chinese in names}
_VAGUE = frozenset(
    {"", "-", "unknown", "unclear", "not sure", "unsure", "no", "none", "n/a", "na", "null", "unspecified", "undefined"}
    | {
        f"not {word}"
        for word in ("mentioned", "specified", "stated", "known", "given", "provided", "available", "clear")
    }
    | {"no information", "未知", "不清楚", "无", "不详", "不明", "未提及", "没有", "不确定", "未说明", "暂无", "不知道"}
)
_QUOTES = str.maketrans("“”‘’，［］｛｝", "\"\"'',[]{}")
_END_OF_ITEM = re.compile(r"[\"'”’](?=\s*(?:[,\]}]|\Z))")
_NESTED = re.compile(r"\[(?=\s*\[)|\](?=\s*\])")
_LISTED = re.compile(r"^\s*(?:[-*•·]|\d{1,3}[.)、])?\s*\**([^:：\n]{1,40})[:：]\**\s*(.+?)\s*$", re.MULTILINE)


def decision_truth(future: Sequence[Message]) -> Decision:
    """`"stop"` when the patient says nothing more in the future, else `"continue"` (spec section 4)."""
    return "continue" if any(message["role"] == "user" for message in future) else "stop"


def info_truth(info_set: Sequence[str] | None) -> str:
    """The extracted items joined by `", "`; `""` when there are none or extraction failed."""
    return ", ".join(info_set or ())


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


def parse_info_set(answer: str) -> list[str] | None:
    """Reads the extractor's answer: a list of `field: value` strings, in any of the forms that models write.

    Reasoning in `<think>` and prose or code fences around the list are ignored; of several lists the last that is not
    empty counts, of one that is cut off its whole items. JSON, Python's quotes, objects, bullets and numbered lines are
    read. Items with a field that is not asked for, with a vague value, or already seen are dropped, so that the rules
    of the prompt hold whatever the model does. Chinese field names become the English ones; the value stays as it is.

    Args:
        answer: The extractor's whole reply.

    Returns:
        The items in their order, possibly none; `None` when the reply holds no list of `field: value`
        strings and should be tried again.
    """
    items = _items(strip_reasoning(answer))
    if items is None:
        return None
    pairs = [(field.strip(), value.strip()) for field, colon, value in map(_split, items) if colon]
    if items and not pairs:
        return None
    kept: dict[str, str] = {}
    for field, value in pairs:
        name = _ENGLISH_FIELD.get(field, field)
        if _is_asked_for(field) and value.lower().strip(" .。") not in _VAGUE:
            item = f"{name}: {value}"
            kept.setdefault(item.lower(), item)
    return list(kept.values())


def _split(item: str) -> tuple[str, str, str]:
    """Field, colon and value of an item; the colon may be a full-width one."""
    return item.replace("：", ":", 1).partition(":") if "：" in item.partition(":")[0] else item.partition(":")


def _is_asked_for(field: str) -> bool:
    """Whether a field is one of the clinical attributes."""
    words = _ENGLISH_FIELD.get(field.strip(), field).lower().replace("_", " ").split()
    if words and words[0] in ("symptom", "symptoms") and len(words) > 1:
        words = words[1:]
    return " ".join(words).removesuffix("s") in INFO_FIELDS


def _items(text: str) -> list[str] | None:
    """The items of the last list that is not empty; `[]` when all are, `None` without a list."""
    lists = [found for part in _bracketed(text) if (found := _flat(part)) is not None]
    if not lists:
        listed = [f"{field.strip(' *`')}: {value}" for field, value in _LISTED.findall(text)]
        asked = [item for item in listed if _is_asked_for(item.partition(":")[0])]
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


def _flat(value: object) -> list[str] | None:
    """The `field: value` strings of a value, `None` when it is no list of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        parts = [_flat(item) for item in value]
        return None if any(part is None for part in parts) else [item for part in parts for item in part or ()]
    if not isinstance(value, dict):
        return None
    if {"field", "value"} <= value.keys():
        return [f"{value['field']}: {value['value']}"]
    items: list[str] = []
    for field, inner in ((str(name), inner) for name, inner in value.items()):
        if isinstance(inner, list) and not _is_asked_for(field):
            items += _flat(inner) or ()
        else:
            items += [f"{field}: {each}" for each in (inner if isinstance(inner, list) else [inner])]
    return items
