"""Reads a grader's reply: the last scores outside its reasoning count, in any of the forms that models write."""

import html
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

from tuner.learn_to_ask.core.reward import Scores

_NAMES = ("format_score", "content_score")  # of a grade
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
    think, verdict = _think_and_verdict(reply)
    scores = _read(verdict, _NAMES)
    return None if scores is None else Scores(format_score=scores[0], content_score=scores[1], think=think)


def parse_score(reply: str, *, name: str) -> tuple[float, str] | None:
    """Reads a reply that holds one score, in the forms and by the rules of `parse_grade`.

    Args:
        reply: The whole reply.
        name: Of the tag, JSON key or line that holds the score.

    Returns:
        The score in [0, 1] and the reasoning, or `None` when there is none and the model should be asked again.
    """
    think, verdict = _think_and_verdict(reply)
    scores = _read(verdict, (name,))
    return None if scores is None else (scores[0], think)


def _think_and_verdict(reply: str) -> tuple[str, str]:
    """The reasoning, and what is outside it."""
    reasoning, closed, verdict = reply.rpartition("</think>")
    if not closed:
        reasoning, verdict = "", reply
    verdict, _, unfinished = verdict.partition("<think>")
    _, opened, inside = reasoning.partition("<think>")
    think = inside if opened else reasoning or unfinished
    return think.strip(), unicodedata.normalize("NFKC", verdict)


def _read(verdict: str, names: Sequence[str]) -> list[float] | None:
    """The scores of these names in the first form that holds all of them."""
    for text in (verdict, html.unescape(verdict)):
        for pattern in (_TAG, _LINE):
            if pattern is _LINE and (found := _from_object(text, names)):
                return found
            if found := _all_of(_last_score(pattern.format(name=name), text) for name in names):
                return found
            if any(f"<{name}" in text.lower() for name in names):
                return None  # tags are there, but not all hold a score
    return None


def _all_of(scores: Iterable[float | None]) -> list[float] | None:
    """The scores, `None` where one is missing."""
    found = list(scores)
    return None if None in found else [score for score in found if score is not None]


def _from_object(text: str, names: Sequence[str]) -> list[float] | None:
    """The scores of the last JSON object that holds all of them."""
    for match in reversed(list(_OBJECT.finditer(text))):
        try:
            value = json.loads(match[0])
        except ValueError:
            continue
        if scores := _all_of(_score(str(value.get(name))) for name in names):
            return scores
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
