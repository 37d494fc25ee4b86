"""A domain: everything by which interviews in one field differ from those in another."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from tuner.learn_to_ask.core.records import Message, RecordDomain

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
# What may stand in braces in a domain's texts; other braces stay as they are.
PLACEHOLDERS = ("user", "assistant", "stop_token", "fields", "excluded", "or_word")
_IN_BRACES = re.compile(r"\{([a-z_]+)\}")
_FULL_WIDTH_LANGUAGES = ("zh", "ja")


class FilePart(BaseModel):
    """A part of a file that people write: no key that is not known, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Speakers(FilePart):
    """The two sides of an interview, as graders and extractors see them.

    Attributes:
        user: Who is asked, such as `patient`.
        assistant: Who asks, such as `doctor`.
    """

    user: Text
    assistant: Text

    @model_validator(mode="after")
    def _tell_apart(self) -> Self:
        if self.user == self.assistant:
            raise ValueError(f"both sides are called {self.user!r}, a grader could not tell them apart")
        return self


class PolicyTexts(FilePart):
    """The policy's system prompt, in three parts (spec section 5).

    Attributes:
        task: What it is there for.
        question: What a question should look like.
        stop: When stopping is right and how it is said; left out of the prompt of mode `Ra`.
        example: A good question; the preflight has the grader grade it.
    """

    task: Text
    question: Text
    stop: Text
    example: Text

    @field_validator("stop")
    @classmethod
    def _name_the_token(cls, text: str) -> str:
        if "{stop_token}" not in text:
            raise ValueError("has to tell the policy what to output: write {stop_token} where the token belongs")
        return text


class InfoField(FilePart):
    """A kind of information that counts.

    Attributes:
        name: As the extractor is to write it.
        synonyms: Other names that models write; items keep them.
        translations: Names in another language; items get `name` instead.
    """

    name: Text
    synonyms: tuple[Text, ...] = ()
    translations: tuple[Text, ...] = ()


class Information(FilePart):
    """What counts as information in an interview (spec section 3).

    Attributes:
        fields: Kinds of information, at least one.
        excluded: What never counts, in words, as the extraction rules name it.
        vague: Values that say nothing, compared without case and full stops.
    """

    fields: tuple[InfoField, ...] = Field(min_length=1)
    excluded: Text
    vague: tuple[str, ...]

    @cached_property
    def _by_name(self) -> dict[str, str]:
        """Every name that is accepted, plain -> the name that items get, `""` for the one that was written."""
        accepted: dict[str, str] = {}
        for each in self.fields:
            accepted |= {plain(name): "" for name in (each.name, *each.synonyms)}
            accepted |= {plain(name): each.name for name in each.translations}
        return accepted

    @cached_property
    def _vague(self) -> frozenset[str]:
        return frozenset(value.lower() for value in self.vague) | {""}

    def field_name(self, written: str) -> str | None:
        """The name an item gets whose field was written this way, `None` when no such field counts."""
        name = self._by_name.get(plain(written))
        return name if name is None else name or written

    def is_vague(self, value: str) -> bool:
        """Whether a value says nothing."""
        return value.lower().strip(" .。") in self._vague


class ExtractionTexts(FilePart):
    """The extractor's prompt.

    Attributes:
        task: What it reads.
        wanted: What it lists; the fields follow, or stand where `{fields}` does.
        rules: One line each.
        answer: In what form to answer; the example follows.
        example: Items as they should look.
    """

    task: Text
    wanted: Text
    rules: tuple[Text, ...]
    answer: Text
    example: tuple[Text, ...] = Field(min_length=1)


class Level(FilePart):
    """One level of a rubric: the score in [0, 1], and when it is given."""

    score: float = Field(ge=0.0, le=1.0)
    when: Text


class Rubric(FilePart):
    """How a grader scores one aspect.

    Attributes:
        question: What is looked at.
        levels: At least two, with scores of their own.
    """

    question: Text
    levels: tuple[Level, ...] = Field(min_length=2)

    @field_validator("levels")
    @classmethod
    def _differ(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if len({level.score for level in levels}) < len(levels):
            raise ValueError("two levels have the same score")
        return levels


class GradingTexts(FilePart):
    """The grader's prompt.

    Attributes:
        task: What it grades, and that what it reads is no instruction.
        reference: Stands above the reference information.
        format: Rubric of the format score.
        content: Rubric of the content score.
        reply: In what form to reply; the three tags follow.
        reasoning: Stands in the tag of the reasoning.
    """

    task: Text
    reference: Text
    format: Rubric
    content: Rubric
    reply: Text
    reasoning: Text


class CurationTexts(FilePart):
    """The prompt of a judge of whole sessions.

    Attributes:
        task: What it reads, and that this is no instruction.
        teaches: Rubric of how much can be learned from a session.
        reply: In what form to reply; the two tags follow.
    """

    task: Text
    teaches: Rubric
    reply: Text


class AnsweringTexts(FilePart):
    """The prompt of a model that answers as the user of a logged session.

    Attributes:
        task: What it reads, and that this is no instruction.
        reply: In what form to reply: the numbers of notes.
    """

    task: Text
    reply: Text


class Domain(FilePart):
    """A field of interviews, as its YAML file describes it.

    Attributes:
        name: Of the domain, in rollout files too.
        language: Code of the language in which the interviews are held, such as `en`.
        or_word: Stands before the last of several choices.
        speakers: The two sides.
        stop_token: What the policy outputs to end an interview.
        end_marker: The message by which the logged expert ended one.
        unknown_answer: What the user says, in a whole interview, to a question that the log does not answer.
        policy: The policy's prompt.
        information: What counts as information.
        extraction: The extractor's prompt.
        grading: The grader's prompt.
        curation: The prompt of a judge of logged sessions.
        answering: The prompt of a model that answers as the user of a logged session.
        vocabulary: File with which sample logs are made and the offline stand-ins read; `None` where there is none.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z]+)?$")]
    or_word: Text
    speakers: Speakers
    stop_token: Text
    end_marker: Text
    unknown_answer: Text
    policy: PolicyTexts
    information: Information
    extraction: ExtractionTexts
    grading: GradingTexts
    curation: CurationTexts
    answering: AnsweringTexts
    vocabulary: str | None = None

    @model_validator(mode="after")
    def _known_placeholders(self) -> Self:
        for where, text in _texts(self.model_dump()):
            for name in _IN_BRACES.findall(text):
                if name not in PLACEHOLDERS:
                    known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
                    raise ValueError(f"{where}: {{{name}}} stands for nothing; there are {known}")
        return self

    def fill(self, text: str) -> str:
        """A text of this domain with the placeholders replaced.

        Args:
            text: One of its own.
        """
        values = {
            "user": self.speakers.user,
            "assistant": self.speakers.assistant,
            "stop_token": self.stop_token,
            "fields": self.listed([each.name for each in self.information.fields]),
            "excluded": self.information.excluded,
            "or_word": self.or_word,
        }
        return _IN_BRACES.sub(lambda match: values.get(match[1], match[0]), text)

    @property
    def of_record(self) -> RecordDomain:
        """What a rollout file says of the domain."""
        return RecordDomain(name=self.name, stop_token=self.stop_token, **self.speakers.model_dump())

    def stops_in(self, messages: Sequence[Message]) -> bool:
        """Whether a log holds the stop token: a policy that repeats what was said would stop by it."""
        return any(self.stop_token in message["content"] for message in messages)

    @property
    def full_width(self) -> bool:
        """Whether the language is written with full-width punctuation."""
        return self.language.startswith(_FULL_WIDTH_LANGUAGES)

    def listed(self, items: Sequence[str]) -> str:
        """Several things, one after the other."""
        return ("、" if self.full_width else ", ").join(items)

    def choices(self, items: Sequence[str]) -> str:
        """Several things of which one is to be chosen: `a, b or c`."""
        *most, last = items
        return f"{self.listed(most)} {self.or_word} {last}" if most else last


def stop_token_in_log(domain: Domain) -> str:
    """What is wrong with a log that holds the stop token, in words."""
    return (
        f"the dialogue holds {domain.stop_token!r}, the stop token of domain {domain.name}, so that a policy that "
        "quotes it would stop; choose another stop_token in the domain file, or leave the session out"
    )


def plain(field: str) -> str:
    """A field's name without case, underscores and plural, in which two ways to write it are one."""
    return " ".join(field.lower().replace("_", " ").split()).removesuffix("s")


def _texts(value: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a domain with the keys that lead to it."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{number}]")
