"""What a session is like in figures: the only thing that the rules of the curation look at."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.learn_to_ask.core.records import Message, Session
from tuner.learn_to_ask.core.segmentation import runs
from tuner.learn_to_ask.engines.question_rules import count_questions

# What advertising is made of: web addresses, and invitations to go elsewhere.
_SPAM = re.compile(
    r"https?://|\bwww\.|\bt\.me/|\bwa\.me/"
    r"|\b(?:click (?:here|the link|below)|promo(?:tion)? code|discount code|coupon|limited offer|special offer"
    r"|free shipping|buy now|order now|subscribe|earn money|casino)\b"
    r"|加(?:我)?(?:微信|v信|qq)|扫(?:码|二维码)|点击链接|免费领取|限时优惠|代购|刷单",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A session in figures; the message that is the end marker and nothing else is not counted among the texts.

    Attributes:
        messages: How many, the end included.
        patient_messages: Those of the patient.
        doctor_messages: Those of the doctor, the end included.
        characters: In all texts.
        after_end: Messages behind the one in which the doctor ends the interview; `None` when none does.
        questions: That the doctor asks.
        asking_turns: The doctor's turns, runs of messages, with a question in them.
        answered_questions: Those in turns after which the patient says something.
        repeated_share: Share of texts that their side has said before, in [0, 1].
        letter_share: Share of letters, of any script, among the visible characters, in [0, 1]; 1 without any.
        spam_marks: Web addresses and phrases of advertising.
    """

    messages: int
    patient_messages: int
    doctor_messages: int
    characters: int
    after_end: int | None
    questions: int
    asking_turns: int
    answered_questions: int
    repeated_share: float
    letter_share: float
    spam_marks: int


def facts_of(session: Session, *, end_marker: str) -> Facts:
    """Counts what there is to count.

    Args:
        session: A validated session.
        end_marker: What the doctor says to end an interview.
    """
    messages = session.messages
    patient = sum(message["role"] == "user" for message in messages)
    texts = texts_of(messages, end_marker=end_marker)
    whole = "\n".join(text for _, text in texts)
    said = [(role, " ".join(text.casefold().split())) for role, text in texts]
    turns = list(_doctor_turns(messages, end_marker=end_marker))
    return Facts(
        messages=len(messages),
        patient_messages=patient,
        doctor_messages=len(messages) - patient,
        characters=sum(len(text) for _, text in texts),
        after_end=_after_end(messages, end_marker=end_marker),
        questions=sum(questions for questions, _ in turns),
        asking_turns=sum(questions > 0 for questions, _ in turns),
        answered_questions=sum(questions for questions, answered in turns if answered),
        repeated_share=1 - len(set(said)) / len(said) if said else 0.0,
        letter_share=_letter_share(whole),
        spam_marks=len(_SPAM.findall(whole)),
    )


def texts_of(messages: Sequence[Message], *, end_marker: str) -> list[tuple[str, str]]:
    """Role and text of every message, without the doctor's end marker."""
    cut = (
        (
            message["role"],
            message["content"].replace(end_marker, "") if message["role"] == "assistant" else message["content"],
        )
        for message in messages
    )
    return [(role, text) for role, text in cut if text.strip()]


def _after_end(messages: Sequence[Message], *, end_marker: str) -> int | None:
    """How many messages follow the first in which the doctor ends."""
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and end_marker in message["content"]:
            return len(messages) - 1 - index
    return None


def _doctor_turns(messages: Sequence[Message], *, end_marker: str) -> Iterator[tuple[int, bool]]:
    """For each run of the doctor's messages the questions in it, and whether the patient speaks after it."""
    spoken = runs(messages)
    for place, (role, said) in enumerate(spoken):
        if role == "assistant":
            asked = sum(count_questions(text.replace(end_marker, "")) for text in said)
            yield asked, place + 1 < len(spoken)


def _letter_share(text: str) -> float:
    """Share of letters and the marks on them among what is visible."""
    visible = [character for character in text if not character.isspace()]
    letters = sum(
        character.isalpha() or (character > "\x7f" and unicodedata.category(character)[0] == "M")
        for character in visible
    )
    return letters / len(visible) if visible else 1.0
