"""Reads a grader's reply: the last scores outside its reasoning count, in any of the forms that models write."""

import html
import json
import re
import unicodedata

from tuner.learn_to_ask.core.reward import Scores

_NAMES = ("format_score", "content_score")
_TAG = r"<\s*{name}\s*>([^<>]*)(?:<\s*/\s*{name}\s*>|\Z)"
_LINE = r"^\W*{name}\W*?[:=](.*)$"
# A number, of 1 where it is a fraction, a label before it and a remark behind it.
_SCORE = re.compile(
    r"(?:[a-z ]{1,20}:)?\s*(?P<number>\d{1,3}(?:[.,]\d{0,6})?|[.,]\d{1,6})(?:\s*/\s*1(?:[.,]0{0,6})?)?"
    r"(?:\s*\(.*|\s+[-–—]+\s+[^\W\d].*|\s*[,;:]\s+\D.*)?",
    re.IGNORECASE | re.DOTALL,
)
_OBJECT = re.compile(r"\{[^{}]*\}")


def parse_grade(reply: str) -> Scores | None:
    """Reads `<think>`, `<format_score>` and `<content_score>` from a grader's reply.

    Everything up to the last `</think>`, and everything after a `<think>` that is never closed, is reasoning and cannot
    score. In what is left the last tag of each kind that holds a number in [0, 1] counts; without tags a JSON object or
    lines with the two names do. Bold, fractions of 1 and a remark behind the number do no harm; `nan`, `inf`, signs,
    exponents and numbers above 1 are no scores.

    Args:
        reply: The grader's whole reply.

    Returns:
        The scores, or `None` when one of them is missing and the grader should be asked again.
    """
    reasoning, closed, verdict = reply.rpartition("</think>")
    if not closed:
        reasoning, verdict = "", reply
    verdict, _, unfinished = verdict.partition("<think>")
    scores = _read(unicodedata.normalize("NFKC", verdict))
    if scores is None:
        return None
    _, opened, inside = reasoning.partition("<think>")
    think = inside if opened else reasoning or unfinished
    return Scores(format_score=scores[0], content_score=scores[1], think=think.strip())


def _read(verdict: str) -> tuple[float, float] | None:
    """Format and content score in the first form that holds both."""
    for text in (verdict, html.unescape(verdict)):
        for pattern in (_TAG, _LINE):
            if pattern is _LINE and (found := _from_object(text)):
                return found
            scores = [_last_score(pattern.format(name=name), text) for name in _NAMES]
            if scores[0] is not None and scores[1] is not None:
                return scores[0], scores[1]
            if any(f"<{name}" in text.lower() for name in _NAMES):
                return None  # tags are there, but not both hold a score
    return None


def _from_object(text: str) -> tuple[float, float] | None:
    """The scores of the last JSON object that holds both."""
    for match in reversed(list(_OBJECT.finditer(text))):
        try:
            value = json.loads(match[0])
        except ValueError:
            continue
        scores = [_score(str(value.get(name))) for name in _NAMES]
        if scores[0] is not None and scores[1] is not None:
            return scores[0], scores[1]
    return None


def _last_score(pattern: str, text: str) -> float | None:
    """The last score that the pattern finds."""
    matches = re.finditer(pattern, text, re.IGNORECASE | re.DOTALL if "<" in pattern else re.IGNORECASE | re.MULTILINE)
    scores = [score for match in matches if (score := _score(match[1])) is not None]
    return scores[-1] if scores else None


def _score(text: str) -> float | None:
    """A number in [0, 1], whatever stands around it; `None` for anything else."""
    match = _SCORE.fullmatch(text.strip().strip("*_`\"' ").strip())
    if match is None:
        return None
    score = float(match["number"].replace(",", "."))
    return score if score <= 1.0 else None
