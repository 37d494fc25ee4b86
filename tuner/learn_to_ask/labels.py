"""The former place of core/labels.py, with the medical domain, for code that imports it here; goes with 0.3."""

from tuner.learn_to_ask.core import labels
from tuner.learn_to_ask.core.labels import decision_truth, info_truth, to_task
from tuner.learn_to_ask.domains import default_domain

__all__ = ["decision_truth", "info_truth", "parse_info_set", "to_task"]


def parse_info_set(answer: str) -> list[str] | None:
    """As `core.labels.parse_info_set`, with the medical domain's fields."""
    return labels.parse_info_set(answer, default_domain().information)
