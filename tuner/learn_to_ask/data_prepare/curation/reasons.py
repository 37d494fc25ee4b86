"""What a session can be dropped for, in the order in which it is looked for, with titles and thresholds for reading."""

from dataclasses import dataclass

from tuner.learn_to_ask.data_prepare.curation.examine import CurationSettings
from tuner.learn_to_ask.data_prepare.curation.language import ANY
from tuner.learn_to_ask.data_prepare.curation.rules import RULES
from tuner.learn_to_ask.data_prepare.curation.survey import REASONS

OFF = "off"
_TITLES = {
    **{rule.key: rule.title for rule in RULES},
    "wrong_language": "another language",
    "personal_data": "personal data",
    "duplicate": "says the same as an earlier session",
    "near_duplicate": "says nearly the same as an earlier session",
    "judge": "teaches too little, says the judge",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason to drop a session.

    Attributes:
        key: As in `REASONS`.
        title: For reading.
        threshold: The flag and its value, or `off`.
    """

    key: str
    title: str
    threshold: str


def reasons(settings: CurationSettings, *, least_score: float | None) -> list[Reason]:
    """All reasons.

    Args:
        settings: Of the rules.
        least_score: Of the judge; `None` without one.
    """
    thresholds = {rule.key: _rule_threshold(rule.key, rule.threshold, settings) for rule in RULES}
    thresholds["wrong_language"] = (
        OFF
        if settings.language == ANY
        else f"--language {settings.language}, --language_confidence {settings.language_confidence:g}"
    )
    drops = settings.personal_data == "drop"
    thresholds["personal_data"] = f"--personal_data_score {settings.personal_data_score:g}" if drops else OFF
    thresholds["duplicate"] = "all of it" if settings.duplicates else OFF
    thresholds["near_duplicate"] = OFF if settings.similarity is None else f"--similarity {settings.similarity:g}"
    thresholds["judge"] = OFF if least_score is None else f"--min_judge_score {least_score:g}"
    return [Reason(key=key, title=_TITLES[key], threshold=thresholds[key]) for key in REASONS]


def _rule_threshold(key: str, flag: str, settings: CurationSettings) -> str:
    """The threshold of a rule, for reading."""
    if key not in settings.thresholds:
        return OFF
    return f"--{flag} {settings.thresholds[key]:g}" if flag else f"--end_marker {settings.end_marker}"
