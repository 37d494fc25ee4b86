"""Examines one session: states its facts, finds the first reason to drop it, and masks its personal data."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.data_prepare.curation.facts import Facts, facts_of, texts_of
from tuner.learn_to_ask.data_prepare.curation.language import ANY, LanguageCheck
from tuner.learn_to_ask.data_prepare.curation.personal_data import Handling, PersonalData
from tuner.learn_to_ask.data_prepare.curation.rules import Finding, first_finding


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationSettings:
    """What decides which sessions are kept.

    Attributes:
        thresholds: Key of a rule -> its threshold; rules that are missing are switched off.
        end_marker: What the doctor says to end an interview.
        language: ISO 639-1 code of the language that is wanted, or `any`.
        language_confidence: From which probability on another language counts, in (0, 1].
        personal_data: Mask it, drop sessions with it, or leave it.
        personal_data_score: How sure a recognizer of personal data must be, in (0, 1].
        names_model: A spaCy pipeline that finds names, `""` for none.
        duplicates: Whether sessions that say the same as an earlier one are dropped.
        similarity: From which on two sessions are near-duplicates, in (0, 1]; `None` for keeping those.
    """

    thresholds: Mapping[str, float]
    end_marker: str
    language: str
    language_confidence: float
    personal_data: Handling
    personal_data_score: float
    names_model: str
    duplicates: bool
    similarity: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What came of examining a session.

    Attributes:
        session: The session; where no rule found anything, without its personal data.
        facts: Its figures.
        personal: Kind of personal data -> how often it was found; empty where a rule found something before.
        finding: The first reason to drop it, `None` when it may stay.
    """

    session: Session
    facts: Facts
    personal: Counter[str]
    finding: Finding | None


class Examiner:
    """Examines sessions one by one; holds what has to be loaded for it."""

    def __init__(self, settings: CurationSettings) -> None:
        """Loads the model of languages and the recognizers of personal data, where they are wanted.

        Raises:
            UserError: When one is not installed or the language is not known.
        """
        self._settings = settings
        self._language, self._personal = None, None
        if settings.language != ANY:
            self._language = LanguageCheck(settings.language, confidence=settings.language_confidence)
        if settings.personal_data != "off":
            self._personal = PersonalData(score=settings.personal_data_score, names_model=settings.names_model)

    def mask(self, session: Session) -> tuple[Session, Counter[str]]:
        """The session without its personal data, and what was found; as it is where that is switched off."""
        return self._personal.mask_session(session) if self._personal else (session, Counter())

    def examine(self, session: Session) -> Examined:
        """Everything that can be said of a session without the others; what is dropped anyway is not masked."""
        facts = facts_of(session, end_marker=self._settings.end_marker)
        finding = first_finding(facts, self._settings.thresholds) or self._other_language(session)
        if finding:
            return Examined(session=session, facts=facts, personal=Counter(), finding=finding)
        masked, personal = self.mask(session)
        return Examined(session=masked, facts=facts, personal=personal, finding=self._to_drop(personal))

    def _other_language(self, session: Session) -> Finding | None:
        """Whether it is in another language."""
        if not self._language:
            return None
        texts = texts_of(session.messages, end_marker=self._settings.end_marker)
        said = self._language.finds(" ".join(text for _, text in texts))
        return Finding("wrong_language", said) if said else None

    def _to_drop(self, personal: Counter[str]) -> Finding | None:
        """Whether it holds personal data and is to be dropped for it."""
        if self._settings.personal_data != "drop" or not personal:
            return None
        return Finding("personal_data", ", ".join(f"{kind}: {count}" for kind, count in sorted(personal.items())))
