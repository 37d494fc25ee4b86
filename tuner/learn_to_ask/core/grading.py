"""Reads a grader's reply: the last well-formed score tags outside its reasoning count, nothing else."""

import re

from tuner.learn_to_ask.core.reward import Scores

_SCORE = r"<{tag}>\s*(\d{{1,3}}(?:\.\d{{0,6}})?|\.\d{{1,6}})\s*</{tag}>"
_FORMAT = re.compile(_SCORE.format(tag="format_score"))
_CONTENT = re.compile(_SCORE.format(tag="content_score"))


def parse_grade(reply: str) -> Scores | None:
    """Reads `<think>`, `<format_score>` and `<content_score>` from a grader's reply.

    Everything up to the last `</think>`, and everything after a `<think>` that is never closed, is
    reasoning and cannot score. In what is left the last tag of each kind whose content is a number in
    [0, 1] counts; prose, `nan`, `inf`, signs, exponents and numbers above 1 are not well-formed.

    Args:
        reply: The grader's whole reply.

    Returns:
        The scores, or `None` when one of them is missing and the grader should be asked again.
    """
    reasoning, closed, verdict = reply.rpartition("</think>")
    if not closed:
        reasoning, verdict = "", reply
    verdict, _, unfinished = verdict.partition("<think>")
    format_score = _last_score(_FORMAT, verdict)
    content_score = _last_score(_CONTENT, verdict)
    if format_score is None or content_score is None:
        return None
    _, opened, inside = reasoning.partition("<think>")
    think = inside if opened else reasoning or unfinished
    return Scores(format_score=format_score, content_score=content_score, think=think.strip())


def _last_score(pattern: re.Pattern[str], text: str) -> float | None:
    """The last score in [0, 1] that the pattern finds."""
    scores = [score for match in pattern.finditer(text) if (score := float(match[1])) <= 1.0]
    return scores[-1] if scores else None
