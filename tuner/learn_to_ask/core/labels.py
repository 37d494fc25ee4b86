"""Turns observed futures into labels: the extracted information and the continue/stop decision."""

import json
import re
from collections.abc import Sequence

from tuner.learn_to_ask.core.records import Decision, Message, Sample, Task
from tuner.learn_to_ask.core.responses import strip_reasoning

# The only clinical attributes that count as information (spec section 3). Models write them with or
# without a leading "symptom", and the published data calls the nature of a symptom its quality.
INFO_FIELDS = frozenset({"symptom", "nature", "quality", "location", "severity", "trigger"})
_VAGUE = frozenset(
    {"", "unknown", "unclear", "not sure", "unsure", "none", "n/a", "null", "not mentioned", "unspecified"}
)


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
    """Reads the extractor's answer: a JSON list of `field: value` strings.

    Reasoning in `<think>` and prose or code fences around the list are ignored. Items with a field that
    is not asked for, with a vague value, or already seen are dropped, so that the rules of the prompt hold
    whatever the model does.

    Args:
        answer: The extractor's whole reply.

    Returns:
        The items in their order, possibly none; `None` when the reply holds no list of `field: value`
        strings and should be tried again.
    """
    items = _first_string_list(strip_reasoning(answer))
    if items is None:
        return None
    kept: dict[str, str] = {}
    for item in items:
        field, colon, value = (part.strip() for part in item.partition(":"))
        if not colon:
            return None
        attribute = field.lower().removeprefix("symptom ").strip()
        if attribute in INFO_FIELDS and value.lower().strip(" .") not in _VAGUE:
            kept.setdefault(item.strip().lower(), f"{field}: {value}")
    return list(kept.values())


def _first_string_list(text: str) -> list[str] | None:
    """The first JSON list in the text that holds nothing but strings."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\[", text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    return None
