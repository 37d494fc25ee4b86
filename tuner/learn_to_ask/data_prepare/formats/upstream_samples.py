"""Samples of the published step A, there and back: futures that are one string, and ids that count rounds."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tuner.learn_to_ask.core.labels import decision_truth
from tuner.learn_to_ask.core.records import Message, Sample
from tuner.learn_to_ask.core.segmentation import turn_indices
from tuner.learn_to_ask.data_prepare.formats.dialogue import Roles, Side, dialogue_of, plain_diagn
from tuner.learn_to_ask.data_prepare.formats.rows import Converted, Outcome, PassedOver, Refused, Row
from tuner.learn_to_ask.jsonl import LineError, as_record

_BEGINS = re.compile(r"(user|assistant):(?: |\Z)")


def is_processed(value: object) -> bool:
    """Whether a row looks like a line of the published `*_processed.jsonl`."""
    return isinstance(value, dict) and {"cid", "messages", "remaining_chat"} <= value.keys()


def from_processed(rows: Iterable[Row], roles: Roles) -> Iterator[Outcome]:
    """Samples of the published step A.

    Its ids count the rounds of a session from 1; ours end in the index of the context's last message. Some of its files
    hold the last round only where the context should be: those are put together from the session's earlier rounds,
    which stand before them. Its last round, in which nobody but the doctor speaks, is none of ours.

    Args:
        rows: In their order, those of a session one after the other.
        roles: Of the log.
    """
    for _, group in groupby(rows, key=lambda row: str(row.value.get("session_id"))):
        yield from _samples(list(group), roles)


@dataclass(frozen=True, slots=True)
class _Round:
    """A line of a `*_processed.jsonl`, its messages and its future as messages."""

    row: Row
    messages: list[Message]
    future: list[Message]
    notes: tuple[str, ...]

    @property
    def length(self) -> int:
        """Messages before and after the cut: where contexts are whole, the same for all of a session."""
        return len(self.messages) + len(self.future)


def _samples(rows: Sequence[Row], roles: Roles) -> Iterator[Outcome]:
    """The samples of one session."""
    rounds: list[_Round] = []
    for row in rows:
        try:
            rounds.append(_round(row, roles))
        except LineError as error:
            yield Refused(row.place, error.kind, error.reason)
    whole = _has_whole_contexts(rounds)
    before: list[Message] = []
    for each_round in rounds:
        context = each_round.messages if whole else [*before, *each_round.messages]
        if not each_round.messages or each_round.messages[-1]["role"] != "user":
            yield PassedOver("rounds in which the patient says nothing")
        elif not whole and (_number(rounds[0]) != 1 or len(context) + len(each_round.future) != rounds[0].length):
            reason = "its context holds the last round only, and an earlier round to complete it is missing"
            yield Refused(each_round.row.place, "incomplete context", reason)
        else:
            before = context
            completed = len(context) > len(each_round.messages)
            try:
                yield _sample(each_round, context, completed=completed)
            except LineError as error:
                yield Refused(each_round.row.place, error.kind, error.reason)


def _round(row: Row, roles: Roles) -> _Round:
    text = row.value["remaining_chat"]
    if not isinstance(text, str):
        raise LineError("remaining_chat is no text", "remaining_chat is no text; our own samples need no conversion")
    messages, notes = dialogue_of(row.value["messages"], roles)
    future = parse_chat(text)
    empty = ["left out: empty message" for message in future if not message["content"].strip()]
    made = _Round(row, messages, [each for each in future if each["content"].strip()], (*notes, *empty))
    _number(made)
    return made


def _has_whole_contexts(rounds: Sequence[_Round]) -> bool:
    """Whether the contexts of a session reach back to its start; a lone one is judged by its id."""
    if len(rounds) == 1:
        return _number(rounds[0]) in (1, _rounds_in(rounds[0].messages), len(rounds[0].messages) - 1)
    return len({each_round.length for each_round in rounds}) == 1


def _number(each_round: _Round) -> int:
    """The number that ends the id."""
    cid = each_round.row.value["cid"]
    number = str(cid).rpartition("_")[2]
    if not number.isdecimal():
        raise LineError("bad cid", f"cid {cid!r} does not end in _ and the number of a round")
    return int(number)


def _sample(each_round: _Round, context: list[Message], *, completed: bool) -> Converted:
    value, notes = each_round.row.value, each_round.notes
    if completed:
        notes = (*notes, "put together from earlier rounds: context")
    info_set = value.get("info_set")
    if isinstance(info_set, str):  # the published parser's error message
        info_set, notes = None, (*notes, "extraction failed: info_set")
    sample = {
        "cid": "",
        "session_id": value.get("session_id"),
        "diagn": plain_diagn(value.get("diagn")),
        "messages": context,
        "remaining_chat": each_round.future,
        "info_set": info_set,
    }
    record = as_record(sample, Sample)
    record = record.model_copy(update={"cid": f"{record.session_id}_{len(record.messages) - 1}"})
    return Converted(each_round.row.place, record, notes)


def to_processed(sample: Sample) -> dict[str, Any]:
    """What the published step B reads: the future as one string, the id with the number of the round.

    Args:
        sample: Of our step A.

    Raises:
        LineError: When one string cannot hold the future, or would get another label there.
    """
    text = "\n".join(f"{message['role']}: {message['content']}" for message in sample.remaining_chat)
    if parse_chat(text) != sample.remaining_chat:
        raise LineError("ambiguous text", "a message has a line that begins like another message, `user: ` or such")
    if ("user: " in text) != (decision_truth(sample.remaining_chat) == "continue"):
        raise LineError("ambiguous text", "the doctor's text holds `user: `, which the published step B takes for more")
    return {
        "cid": f"{sample.session_id}_{_rounds_in(sample.messages)}",
        "session_id": sample.session_id,
        "diagn": sample.diagn,
        "messages": sample.messages,
        "remaining_chat": text,
        "info_set": sample.info_set or [],
    }


def parse_chat(text: str) -> list[Message]:
    """The messages of a `remaining_chat`: `user: …` and `assistant: …` lines; other lines belong to those before them.

    Args:
        text: `""` where nothing follows.

    Raises:
        LineError: When the first line names neither.
    """
    messages: list[Message] = []
    for line in text.split("\n") if text.strip() else []:
        begin = _BEGINS.match(line)
        if begin:
            role: Side = "user" if begin[1] == "user" else "assistant"
            messages.append({"role": role, "content": line[begin.end() :]})
        elif messages:
            messages[-1]["content"] += f"\n{line}"
        else:
            reason = f"remaining_chat: begins with {line[:40]!r}, not with user: or assistant:"
            raise LineError("bad remaining_chat", reason)
    return messages


def _rounds_in(messages: Sequence[Message]) -> int:
    """How many rounds a context holds: runs of the patient's messages."""
    return sum(1 for _ in turn_indices(messages))
