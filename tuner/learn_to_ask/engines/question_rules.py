"""Counts the questions of a message by rules, for the offline grader: what a clause of a question begins with."""

import re

_HELPER = r"(?:do|does|did|is|are|was|were|have|has|had|can|could|will|would|should|may)(?:n't)?"
_WORD = r"(?:what|when|where|which|who|whose|why|how)"
_SUBJECT = (
    r"(?:you|your|it|its|the|there|this|that|these|those|they|he|she|we|i|any|anything|anyone|some|something|one|a|an)"
)
# "is it ...", "how long have ...", "since when does ..."
_CLAUSE = rf"(?:{_HELPER}\s+{_SUBJECT}\b|(?:\w+\s+)?{_WORD}\b(?:\s+[\w'-]+){{0,2}}?\s+{_HELPER}\b)"
_NEXT_CLAUSE = re.compile(rf"(?:[,;]\s*(?:and\s+)?|\band\s+){_CLAUSE}")
_BEGINNING = re.compile(
    rf"{_CLAUSE}"
    rf"|(?:(?:in|on|at|for|since|from|to|with|by|about)\s+)?{_WORD}\b"  # "what brings it on", "for how long"
    rf"|{_HELPER}\s+\w+"  # "do cold drinks set it off"
    r"|any\b|anything\b"  # "any fever"
)
_LEAD_IN = re.compile(
    r"\A(?:(?:and|but|so|ok|okay|well|also|then|next|now|alright|right|thanks|thank you|i see|sorry|please|hello|hi|"
    r"sure|yes|no|good)\b[\s,.!:-]*)+"
)
# "you have a fever?", "the stool is watery?"
_SAID_AS_A_QUESTION = re.compile(
    r"(?:you|it|there|this|that|they)\s+[a-z']+\s+\w"
    r"|(?:the|your)\s[\w\s'-]+?\s(?:is|are|was|were|has|have|feels?|hurts?)\b"
)
_SHORT, _SHORT_WITH_CHOICE = 3, 5  # words of a question that is only named: "abdominal cramps?", "one eye or both?"
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CJK_PARTICLES = re.compile("[吗呢嗎]")


def count_questions(message: str) -> int:
    """How many questions a message asks; several may stand before one question mark.

    Args:
        message: In English, or in Chinese, Japanese or Korean, where marks and particles count.
    """
    if _CJK.search(message):
        return len(re.findall(r"[?？]", message)) or int(bool(_CJK_PARTICLES.search(message)))
    return sum(_questions_of(sentence, marked) for sentence, marked in _sentences(message))


def asks(message: str) -> bool:
    """Whether any sentence of a message is built as a question; words that are strung together are none.

    Args:
        message: As for `count_questions`.
    """
    if _CJK.search(message):
        return count_questions(message) > 0
    return any(_is_question(sentence, marked) for sentence, marked in _sentences(message))


def _sentences(message: str) -> list[tuple[str, bool]]:
    """The sentences in lower case without their lead-in, each with whether a question mark ends it."""
    found = re.findall(r"([^.?？!\n]+)([.?？!\n]?)", re.sub(r"(?<=\d)\.(?=\d)", ",", message.lower()))
    cut = ((_LEAD_IN.sub("", text.strip(" ,;:-"), count=1), end in "?？" and end != "") for text, end in found)
    return [(text, marked) for text, marked in cut if text]


def _questions_of(sentence: str, marked: bool) -> int:
    """How many questions a sentence asks: one for each clause that begins as one, one for a mark alone."""
    begins = bool(re.match(_CLAUSE, sentence))
    if not marked and not begins:
        return 0
    return max(1, begins + len(_NEXT_CLAUSE.findall(sentence)))


def _is_question(sentence: str, marked: bool) -> bool:
    """Whether a sentence is built as a question."""
    if re.match(_CLAUSE, sentence):
        return True
    if not marked:
        return False
    words = re.findall(r"[\w'-]+", sentence.partition(":")[0])  # what comes after are choices
    last_part = sentence.rpartition(",")[2].strip()  # "with the cough, is there phlegm"
    if _BEGINNING.match(sentence) or re.match(_CLAUSE, last_part) or _SAID_AS_A_QUESTION.match(sentence):
        return True
    named = len(words) <= (_SHORT_WITH_CHOICE if "or" in words else _SHORT)
    return named and len(set(words)) == len(words)
