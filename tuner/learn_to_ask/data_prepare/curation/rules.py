"""The rules of the curation: each looks at a session's facts, has a threshold and says what it found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuner.learn_to_ask.data_prepare.curation.facts import Facts


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a session is not kept.

    Attributes:
        rule: Key of the rule.
        said: What exactly was found, for reading.
    """

    rule: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One reason to drop a session.

    Attributes:
        key: Its name in `--off` and in reports.
        title: What it drops, for reading.
        threshold: Name of its threshold and of the flag that sets it; `""` where there is nothing to set.
        default: The threshold.
        help: What the threshold means, for the flag.
        finds: Facts and threshold -> what was found, `""` for nothing.
    """

    key: str
    title: str
    threshold: str = ""
    default: float = 0
    help: str = ""
    finds: Callable[[Facts, float], str]


def _too_short(facts: Facts, least: float) -> str:
    return f"{facts.messages} messages" if facts.messages < least else ""


def _too_long(facts: Facts, most: float) -> str:
    return f"{facts.messages} messages" if facts.messages > most else ""


def _too_many_characters(facts: Facts, most: float) -> str:
    return f"{facts.characters:,} characters" if facts.characters > most else ""


def _no_patient(facts: Facts, least: float) -> str:
    return f"{facts.patient_messages} messages of the patient" if facts.patient_messages < least else ""


def _one_sided(facts: Facts, least: float) -> str:
    doctor = facts.doctor_messages / facts.messages
    if min(doctor, 1 - doctor) >= least:
        return ""
    return f"{facts.patient_messages} messages of the patient, {facts.doctor_messages} of the doctor"


def _broken_off(facts: Facts, _: float) -> str:
    return "the doctor never ends the interview" if facts.after_end is None else ""


def _goes_on(facts: Facts, most: float) -> str:
    after = facts.after_end or 0
    return f"{after} messages after the doctor's end" if after > most else ""


def _few_questions(facts: Facts, least: float) -> str:
    return f"{facts.questions} questions of the doctor" if facts.questions < least else ""


def _many_questions(facts: Facts, most: float) -> str:
    mean = facts.questions / facts.asking_turns if facts.asking_turns else 0.0
    return f"{mean:.1f} questions in a turn of the doctor" if mean > most else ""


def _unanswered(facts: Facts, least: float) -> str:
    if facts.answered_questions >= least * facts.questions:
        return ""
    return f"{facts.answered_questions} of {facts.questions} questions answered"


def _repetitive(facts: Facts, most: float) -> str:
    return f"{facts.repeated_share:.0%} of the messages said before" if facts.repeated_share > most else ""


def _no_language(facts: Facts, least: float) -> str:
    return f"{facts.letter_share:.0%} letters" if facts.letter_share < least else ""


def _spam(facts: Facts, most: float) -> str:
    return f"{facts.spam_marks} web addresses or phrases of advertising" if facts.spam_marks > most else ""


# In the order in which they are asked: a session counts for the first that finds something.
RULES = (
    Rule(key="no_patient", title="no patient message", threshold="min_patient_messages", default=1,
         help="messages of the patient that a session needs", finds=_no_patient),
    Rule(key="too_short", title="too short", threshold="min_messages", default=3,
         help="messages that a session needs, the doctor's end included", finds=_too_short),
    Rule(key="too_long", title="too long", threshold="max_messages", default=200,
         help="most messages of a session", finds=_too_long),
    Rule(key="too_many_characters", title="too many characters", threshold="max_characters", default=20_000,
         help="most characters of a session; 20,000 are some 5,000 tokens of English, and the policy reads 8,192",
         finds=_too_many_characters),
    Rule(key="one_sided", title="one-sided", threshold="min_side_share", default=0.05,
         help="share of the messages that the side which says less must have", finds=_one_sided),
    Rule(key="broken_off", title="broken off", finds=_broken_off),
    Rule(key="goes_on", title="goes on after the end", threshold="max_after_end", default=0,
         help="most messages after the doctor's end; where the patient speaks again, that end is not labelled a stop",
         finds=_goes_on),
    Rule(key="repetitive", title="repetitive", threshold="max_repeated_share", default=0.5,
         help="most of the messages that may repeat one of the same side, as a share", finds=_repetitive),
    Rule(key="no_language", title="hardly any letters", threshold="min_letter_share", default=0.5,
         help="share of letters, of any script, among the characters", finds=_no_language),
    Rule(key="spam", title="spam", threshold="max_spam_marks", default=1,
         help="most web addresses and phrases of advertising in a session", finds=_spam),
    Rule(key="few_questions", title="too few questions", threshold="min_questions", default=0,
         help="questions that the doctor must ask; 0 keeps sessions ended at once, which teach to stop",
         finds=_few_questions),
    Rule(key="many_questions", title="too many questions at a time", threshold="max_questions_per_turn", default=5,
         help="most questions in a turn of the doctor, on average over the turns that ask", finds=_many_questions),
    Rule(key="unanswered", title="questions not answered", threshold="min_answered_share", default=0.5,
         help="share of the doctor's questions that the patient must react to", finds=_unanswered),
)  # fmt: skip


def first_finding(facts: Facts, thresholds: Mapping[str, float]) -> Finding | None:
    """The first rule that finds something.

    Args:
        facts: Of the session.
        thresholds: Key of a rule -> its threshold; a rule that is missing is switched off.

    Returns:
        What it found, `None` when the session may stay.
    """
    for rule in RULES:
        if rule.key in thresholds and (said := rule.finds(facts, thresholds[rule.key])):
            return Finding(rule.key, said)
    return None
