"""Cuts a session into context-future samples, one wherever the doctor speaks next (spec section 3)."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from tuner.learn_to_ask.core.records import Message, Sample, Session


def turn_indices(messages: Sequence[Message]) -> Iterator[int]:
    """Yields the 0-based index of the last message of every maximal run of patient messages.

    Args:
        messages: The whole dialogue.
    """
    last = len(messages) - 1
    for index, message in enumerate(messages):
        if message["role"] == "user" and (index == last or messages[index + 1]["role"] != "user"):
            yield index


def runs(messages: Sequence[Message]) -> list[tuple[str, list[str]]]:
    """Who speaks and what is said, one entry for messages of one side that follow each other."""
    by_role = groupby(messages, key=lambda message: message["role"])
    return [(role, [message["content"] for message in run]) for role, run in by_role]


def segment(session: Session) -> Iterator[Sample]:
    """Yields the samples of a session in dialogue order.

    The context of a sample is the whole dialogue up to and including the run of patient messages, its
    future everything after; together they are the session, message by message. A log that breaks off
    after a patient message yields a last sample with an empty future.

    Args:
        session: A validated session. One without a patient message yields nothing.
    """
    for turn_index in turn_indices(session.messages):
        # model_construct: the parts come from a validated session, so validating them again would only
        # make a long session quadratically slower.
        yield Sample.model_construct(
            cid=f"{session.session_id}_{turn_index}",
            session_id=session.session_id,
            diagn=session.diagn,
            messages=session.messages[: turn_index + 1],
            remaining_chat=session.messages[turn_index + 1 :],
            info_set=None,
        )
