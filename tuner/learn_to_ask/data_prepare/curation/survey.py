"""The first pass of the curation: what becomes of every session, in a kilobyte each and without their texts."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tuner.learn_to_ask.core.records import Session
from tuner.learn_to_ask.data_prepare.curation.examine import CurationSettings, Examined, Examiner
from tuner.learn_to_ask.data_prepare.curation.near_duplicates import Pair, Signatures, Watch, later_twins, plain_text
from tuner.learn_to_ask.data_prepare.curation.rules import RULES

# What a session can be dropped for, in the order in which it is looked for.
REASONS = (*(rule.key for rule in RULES), "wrong_language", "personal_data", "duplicate", "near_duplicate", "judge")
# What the report shows of the sessions before and after: name in `Facts` -> title, with who speaks in braces.
FIGURES = {
    "messages": "messages of a session",
    "patient_messages": "messages of the {user}",
    "characters": "characters of a session",
    "questions": "questions of the {assistant}",
}
_KEPT = 255  # in `Survey.outcomes`: no reason


@dataclass(slots=True, kw_only=True)
class Survey:
    """What is known of the sessions of a file, by their position in it.

    Attributes:
        ids: Of the sessions.
        outcomes: Index in `REASONS`, or 255 for a session that is kept.
        figures: Name of a figure -> its value for each session.
        diagnoses: For each session, the index of its diagnosis in `diagnosis_names`.
        diagnosis_names: Each once, in order of appearance.
        twins: Position of a duplicate -> position of the session it repeats.
        near: Position of a near-duplicate -> the pair, by positions.
        judged: Position -> score of those that the judge finds too little in.
        personal: Kind of personal data -> how often it was found.
        with_personal: Positions of the sessions in which any was found.
        left_out: Why messages were left out while reading -> how many.
    """

    ids: list[str] = field(default_factory=list)
    outcomes: "array[int]" = field(default_factory=lambda: array("B"))
    figures: dict[str, "array[int]"] = field(default_factory=lambda: {name: array("L") for name in FIGURES})
    diagnoses: "array[int]" = field(default_factory=lambda: array("L"))
    diagnosis_names: dict[str, int] = field(default_factory=dict)
    twins: dict[int, int] = field(default_factory=dict)
    near: dict[int, Pair] = field(default_factory=dict)
    judged: dict[int, float] = field(default_factory=dict)
    personal: Counter[str] = field(default_factory=Counter)
    with_personal: set[int] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)

    def kept(self, position: int) -> bool:
        """Whether the session at this position is kept."""
        return self.outcomes[position] == _KEPT

    def drop(self, position: int, reason: str) -> None:
        """Notes why the session at this position is not kept."""
        self.outcomes[position] = REASONS.index(reason)

    def dropped(self) -> Counter[str]:
        """Reason -> how many sessions were dropped for it."""
        return Counter(REASONS[outcome] for outcome in self.outcomes if outcome != _KEPT)

    def kept_count(self) -> int:
        """How many sessions are kept."""
        return self.outcomes.count(_KEPT)

    def positions(self, reason: str) -> list[int]:
        """Where the sessions are that were dropped for a reason."""
        wanted = REASONS.index(reason)
        return [position for position, outcome in enumerate(self.outcomes) if outcome == wanted]

    def said(self, position: int, examined: Examined) -> str:
        """What exactly a dropped session was dropped for, for reading."""
        if position in self.twins:
            return f"says the same as session {self.ids[self.twins[position]]}"
        if position in self.near:
            pair = self.near[position]
            return f"{pair.similarity:.0%} like session {self.ids[pair.first]}"
        if position in self.judged:
            return f"score {self.judged[position]:g}"
        return examined.finding.said if examined.finding else ""

    def note(self, examined: Examined) -> None:
        """Adds the next session."""
        if examined.personal:
            self.with_personal.add(len(self.ids))
            self.personal += examined.personal
        self.ids.append(examined.session.session_id)
        self.outcomes.append(_KEPT)
        for name, figure in self.figures.items():
            figure.append(getattr(examined.facts, name))
        diagnosis = str(examined.session.diagn)
        self.diagnoses.append(self.diagnosis_names.setdefault(diagnosis, len(self.diagnosis_names)))
        self.left_out.update(examined.session.dropped)


def survey_sessions(
    sessions: Iterable[Session],
    *,
    examiner: Examiner,
    settings: CurationSettings,
    capacity: int,
    watch: Watch = iter,
) -> Survey:
    """Examines sessions by themselves, then for what they have in common.

    Of sessions that say the same, or nearly the same, the first is kept. Only those are compared that nothing else was
    found against, so that a session which is dropped takes no other with it.

    Args:
        sessions: Consumed one by one.
        examiner: Made for the settings.
        settings: What decides.
        capacity: At most so many sessions will come.
        watch: Passes on the steps of the comparison, to show how far it is.
    """
    survey = Survey()
    signatures = Signatures(capacity) if settings.similarity is not None else None
    compared = array("L")
    first_with: dict[bytes, int] = {}
    for position, session in enumerate(sessions):
        examined = examiner.examine(session)
        survey.note(examined)
        if examined.finding:
            survey.drop(position, examined.finding.rule)
            continue
        if settings.duplicates and (twin := first_with.setdefault(_digest(examined.session), position)) != position:
            survey.twins[position] = twin
            survey.drop(position, "duplicate")
            continue
        if signatures:
            signatures.fill(len(compared), examined.session)
            compared.append(position)
    if signatures and settings.similarity is not None:
        rows = signatures.rows[: len(compared)]
        for row, pair in later_twins(rows, similarity=settings.similarity, watch=watch).items():
            survey.near[compared[row]] = Pair(compared[pair.first], compared[pair.second], pair.similarity)
            survey.drop(compared[row], "near_duplicate")
    return survey


def _digest(session: Session) -> bytes:
    """Eight bytes that only sessions share which say the same."""
    return hashlib.blake2b(plain_text(session).encode(), digest_size=8).digest()
