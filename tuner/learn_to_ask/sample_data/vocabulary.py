"""What a domain's sample dialogues talk about: complaints, what an expert asks about them, what users answer.

The generator writes dialogues with it and the offline stand-ins read them with it.
"""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, ValidationError

from tuner.learn_to_ask.core.domain import Domain, FilePart
from tuner.learn_to_ask.errors import UserError


class Attribute(FilePart):
    """One thing an expert may ask about a complaint.

    Attributes:
        field: The domain's field that an answer belongs to.
        question: How the logged expert asks, without the question mark.
        about: Words that only a question about this attribute uses.
        answers: What a user writes -> the standard term for it. The terms are the choices to offer.
    """

    field: str
    question: str
    about: tuple[str, ...]
    answers: dict[str, str]


class Complaint(FilePart):
    """What brings a user here: its name, its diagnosis, and the attributes that make up the interview."""

    name: str
    diagnosis: str
    openings: tuple[str, ...] = Field(min_length=1)
    attributes: tuple[Attribute, ...] = Field(min_length=3)


class Vocabulary(FilePart):
    """A domain's vocabulary.

    Attributes:
        complaints: What sessions are about.
        greetings: With which some sessions open.
        closing_questions: What experts ask last; never information.
        closing_answers: To them.
        unasked_closings: What a user says who tells everything at once.
        off_topic: What users say and the domain excludes.
        user_chat: Small talk of users.
        assistant_chat: Small talk of experts.
        wait: What an expert says who needs a moment.
        common_words: Words that say nothing about what a question is about, separated by spaces.
    """

    complaints: tuple[Complaint, ...] = Field(min_length=2)
    greetings: tuple[str, ...]
    closing_questions: tuple[str, ...]
    closing_answers: tuple[str, ...]
    unasked_closings: tuple[str, ...]
    off_topic: tuple[str, ...]
    user_chat: tuple[str, ...]
    assistant_chat: tuple[str, ...]
    wait: str
    common_words: str


def vocabulary_of(domain: Domain) -> Vocabulary:
    """The vocabulary of a domain.

    Raises:
        UserError: When the domain has none, or its file cannot be used.
    """
    if domain.vocabulary is None:
        raise UserError(
            f"domain {domain.name}: has no vocabulary, which the sample logs and the offline rules are made of; name a "
            "model instead of the offline engine, or write a file and name it under `vocabulary`"
        )
    return read_vocabulary(domain.vocabulary)


@lru_cache(maxsize=8)
def read_vocabulary(path: str) -> Vocabulary:
    """The vocabulary in a file, read once.

    Raises:
        UserError: Naming the key, when the file cannot be used.
    """
    import yaml

    try:
        return Vocabulary.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, said['loc']))}: {said['msg']}" if said else " ".join(str(error).split())
        raise UserError(f"vocabulary {path}: {what}") from error
