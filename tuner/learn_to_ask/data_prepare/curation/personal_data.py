"""Finds and masks personal data: Presidio's recognizers for phones, e-mail and numbers, and phrases that name someone.

Without a model only names are found which a phrase or a title introduces: "my name is ...", "Dr. ...". A spaCy pipeline
finds the others.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from tuner.learn_to_ask.core.records import Message, Session
from tuner.learn_to_ask.data_prepare.curation.near_duplicates import missing
from tuner.learn_to_ask.errors import UserError

Handling = Literal["mask", "drop", "off"]

# How sure a recognizer must be, in (0, 1]: Presidio gives a phone number 0.4, a number whose check digit is right 1.
SCORE = 0.4
# A number without a country code is a phone number when one of these countries has such numbers.
_REGIONS = ("CN", "US", "GB", "DE", "FR", "ES", "IN", "BR")
_DIGITS = 7  # of a phone number; the numbers of people and cards have more
_DIGIT = re.compile(r"\d")

_PERSONS = ("PERSON", "PER")  # what spaCy's pipelines call them

_ENGLISH_NAME = (
    r"(?<=(?i:\bmy (?:full )?name(?: is|'s)|(?:\A|\b(?:full|patient) )name\s?:)\s+)"
    r"\p{L}[\p{L}'-]*(?: \p{Lu}[\p{L}'-]+){0,2}"
)
_TITLED_NAME = r"(?<=\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\b\.?\s{1,2})\p{Lu}[\p{L}'-]+(?: \p{Lu}[\p{L}'-]+)?"
_CHINESE_NAME = r"(?<=我叫|我的名字[是叫]|姓名[:：]?\s?)\p{Han}{2,3}"
_LABELLED_ID = (
    r"(?<=\b(?i:mrn|(?:patient|record|insurance) (?:id|no|number)|passport(?: no| number)?)\.?\s?[:#]?\s?(?:is )?"
    r"|(?:病历|住院|门诊|医保|护照)号码?[:：是]?\s?)(?=[A-Z-]{0,6}\d)[A-Z\d-]{5,20}\b"
)
_CHINESE_ID = r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\d)"
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


class PersonalData:
    """Masks what identifies someone."""

    def __init__(self, *, score: float = SCORE, names_model: str = "") -> None:
        """Loads the recognizers, which takes seconds and 400 MiB: Presidio imports spaCy, and that imports PyTorch.

        Args:
            score: How sure a recognizer must be, in (0, 1].
            names_model: A spaCy pipeline that finds persons, a package or a folder; `""` for none.

        Raises:
            UserError: When presidio-analyzer is not installed or the pipeline cannot be loaded.
        """
        try:
            self._named, self._numbers, self._email = _recognizers()
        except ImportError as error:
            raise UserError(missing("presidio-analyzer", "personal data", "--personal_data off")) from error
        self._score = score
        self._model = _names_pipeline(names_model) if names_model else None

    def mask(self, text: str) -> tuple[str, Counter[str]]:
        """A text with every find replaced by what it is, such as `[phone number]`.

        Args:
            text: One message.

        Returns:
            The text, and how often each kind was found.
        """
        found = sorted(self._find(text), key=lambda each: (each[0], -each[1]))
        kinds: Counter[str] = Counter()
        parts, end = [], 0
        for start, stop, kind in found:
            if start >= end:
                kinds[kind] += 1
                parts += [text[end:start], f"[{kind}]"]
            end = max(end, stop)
        return "".join([*parts, text[end:]]), kinds

    def mask_session(self, session: Session) -> tuple[Session, Counter[str]]:
        """The session with its messages masked, and how often each kind was found. Its diagnosis is left alone."""
        kinds: Counter[str] = Counter()
        messages: list[Message] = []
        for message in session.messages:
            content, found = self.mask(message["content"])
            kinds += found
            messages.append({"role": message["role"], "content": content})
        return (session.model_copy(update={"messages": messages}) if kinds else session), kinds

    def _find(self, text: str) -> Iterable[tuple[int, int, str]]:
        """Start, end and kind of every find; recognizers are only asked where there is something to recognize."""
        asked = list(self._named)
        if "@" in text:
            asked.append(self._email)
        if len(_DIGIT.findall(text)) >= _DIGITS:
            asked += self._numbers
        for kind, recognizer in asked:
            for result in recognizer.analyze(text, recognizer.supported_entities):
                if result.score >= self._score:
                    yield result.start, result.end, kind
        for entity in self._model(text).ents if self._model else ():
            if entity.label_ in _PERSONS:
                yield entity.start_char, entity.end_char, "name"


def _recognizers() -> tuple[list[Any], list[Any], Any]:
    """Kind and recognizer of names, of numbers, and of e-mail addresses."""
    import tldextract
    from presidio_analyzer import Pattern, PatternRecognizer
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        NhsRecognizer,
        PhoneRecognizer,
        UsSsnRecognizer,
    )

    # Presidio's own asks the internet for the list of domains at the first address; this one has the package's.
    domains = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return bool(domains(pattern_text).fqdn)

    class ChineseIdRecognizer(PatternRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            total = sum(int(digit) * weight for digit, weight in zip(pattern_text, _ID_WEIGHTS, strict=False))
            return "10X98765432"[total % 11] == pattern_text[-1].upper()

    def phrases(entity: str, *patterns: str) -> Any:
        named = [Pattern(entity, pattern, 0.6) for pattern in patterns]
        return PatternRecognizer(entity, patterns=named, global_regex_flags=re.UNICODE)

    names = phrases("NAME", _ENGLISH_NAME, _TITLED_NAME, _CHINESE_NAME)
    numbers = [
        ("id", ChineseIdRecognizer("CN_ID", patterns=[Pattern("CN_ID", _CHINESE_ID, 0.5)])),
        ("id", UsSsnRecognizer()),
        ("id", NhsRecognizer()),
        ("bank account", IbanRecognizer()),
        ("card number", CreditCardRecognizer()),
        ("phone number", PhoneRecognizer(supported_regions=_REGIONS)),
    ]
    named = [("name", names), ("id", phrases("ID", _LABELLED_ID))]
    return named, numbers, ("e-mail address", OfflineEmailRecognizer())


def _names_pipeline(name: str) -> Any:
    """A spaCy pipeline without the parts that names do not need.

    Raises:
        UserError: When it cannot be loaded, or does not tell persons.
    """
    import spacy

    try:
        pipeline = spacy.load(name, exclude=["parser", "lemmatizer", "attribute_ruler"])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--names_model {name}: {reason}; python -m spacy download en_core_web_sm gets one") from error
    labels = {label for part in pipeline.pipe_labels.values() for label in part}
    if labels.isdisjoint(_PERSONS):
        raise UserError(
            f"--names_model {name}: has no label {' or '.join(_PERSONS)}; name a pipeline that finds persons"
        )
    return pipeline
