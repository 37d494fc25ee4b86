"""Which language a session is in, by py3langid: its model of 97 languages comes in the package."""

from tuner.learn_to_ask.data_prepare.curation.near_duplicates import missing
from tuner.learn_to_ask.errors import UserError

ANY = "any"
CONFIDENCE = 0.9
_ENOUGH = 1_000  # characters; more make it slower and no surer


class LanguageCheck:
    """Finds sessions that are surely not in the language that is wanted."""

    def __init__(self, language: str, *, confidence: float) -> None:
        """Loads the model, 65 MiB.

        Args:
            language: The language that is wanted, as ISO 639-1 has it, such as `en` or `zh`.
            confidence: From which probability on another language counts, in (0, 1]. What is too short to tell has a
                lower one.

        Raises:
            UserError: When py3langid is not installed or does not know the language.
        """
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise UserError(missing("py3langid", "languages", f"--language {ANY}")) from error
        self._identifier = LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)
        if language not in self._identifier.nb_classes:
            known = " ".join(self._identifier.nb_classes)
            raise UserError(f"--language {language}: not known; pass {ANY} or one of: {known}")
        self._language, self._confidence = language, confidence

    def finds(self, text: str) -> str:
        """What other language a text is in, for reading; `""` for the wanted one and where it cannot be told."""
        language, probability = self._identifier.classify(text[:_ENOUGH])
        if language == self._language or probability < self._confidence:
            return ""
        return f"language {language} ({probability:.0%} sure)"
