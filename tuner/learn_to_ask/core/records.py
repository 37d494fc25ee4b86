"""Every record that crosses a file boundary: sessions, samples, tasks, rollouts, grades."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import TypedDict

Decision = Literal["continue", "stop"]


class Message(TypedDict):
    """One instant message. `user` is the patient, `assistant` the doctor."""

    role: Literal["user", "assistant"]
    content: str


def dropped(messages: list[Any]) -> list[str]:
    """For each message of a log why it is dropped, `""` for those that stay.

    Some servers refuse empty messages, and a system prompt at the head is no part of the dialogue.
    """
    return [
        "system message" if index == 0 and role == "system" else "empty message" if blank else ""
        for index, (role, blank) in enumerate(map(_role_and_blankness, messages))
    ]


def _role_and_blankness(message: object) -> tuple[object, bool]:
    """The role of a message, and whether it is text without anything in it."""
    if not isinstance(message, dict):
        return None, False
    content = message.get("content")
    return message.get("role"), isinstance(content, str) and not content.strip()


class _Record(BaseModel):
    """Shared parsing rules: strict types, keys we do not know are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _FromSession(_Record):
    """Records that name the session they come from, as a number in some files and a string in others."""

    @field_validator("session_id", mode="before", check_fields=False)
    @classmethod
    def _session_id_as_string(cls, value: object) -> object:
        """One type from here on (spec section 3); tables write whole numbers as 1.0."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("messages", "remaining_chat", mode="before", check_fields=False)
    @classmethod
    def _messages_that_say_something(cls, value: object) -> object:
        """Without what is dropped from every dialogue."""
        return (
            value
            if not isinstance(value, list)
            else [item for item, why in zip(value, dropped(value), strict=True) if not why]
        )


class Session(_FromSession):
    """One raw doctor-patient log (spec section 2).

    Attributes:
        session_id: Unique id of the session, as a string.
        diagn: The diagnosis as it stands in the log.
        messages: The whole dialogue in order, at least one message.
        dropped: Why messages were left out, once for each; not written to any file.
    """

    session_id: str
    diagn: Any = None
    messages: list[Message] = Field(min_length=1)
    dropped: list[str] = Field(default=[], exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _count_dropped(cls, data: Any) -> Any:
        """Notes what the validator of `messages` leaves out."""
        messages = data.get("messages") if isinstance(data, dict) else None
        if not isinstance(messages, list):
            return data
        return {**data, "dropped": [why for why in dropped(messages) if why]}


class Judgement(_FromSession):
    """What a judge says of a session.

    Attributes:
        session_id: Of the session.
        score: How much it teaches, in [0, 1]; `None` when the judge gave no readable answer.
        think: Its reasoning.
    """

    session_id: str
    score: float | None = Field(ge=0.0, le=1.0, allow_inf_nan=False)
    think: str = ""


class Sample(_FromSession):
    """A context-future pair (spec section 3).

    Attributes:
        cid: `{session_id}_{turn_index}`, turn_index being the 0-based index of the context's last message.
        messages: The context: everything up to and including the patient's last message.
        remaining_chat: The future: every later message.
        info_set: `field: value` strings extracted from the future; `None` when extraction failed.
    """

    cid: str
    session_id: str
    diagn: Any = None
    messages: list[Message] = Field(min_length=1)
    remaining_chat: list[Message]
    info_set: list[str] | None = None


class Task(_FromSession):
    """A labelled sample, the line format of the training and test sets (spec section 4).

    Attributes:
        cid: Unique id of the sample.
        messages: The context, its last message from the patient.
        decision_truth: Whether the logged doctor went on asking.
        info_truth: The information still worth asking for, joined by `", "`; `""` when there is none.
    """

    cid: str
    session_id: str
    diagn: Any = None
    messages: list[Message] = Field(min_length=1)
    decision_truth: Decision = "continue"
    info_truth: str = ""


class Regrade(_Record):
    """What a grader said when it was asked about the same rollout once more.

    Attributes:
        think: Its reasoning.
        format_score: In [0, 1]; `None` when grading failed.
        content_score: In [0, 1]; `None` when grading failed.
    """

    think: str = ""
    format_score: float | None = Field(ge=0.0, le=1.0, allow_inf_nan=False)
    content_score: float | None = Field(ge=0.0, le=1.0, allow_inf_nan=False)


class Grade(_Record):
    """The scores of one rollout (spec sections 6 and 8).

    Attributes:
        think: The grader's reasoning; `""` when no grader was asked.
        action_score: 1.0 when the decision to continue or stop is right, else 0.0.
        format_score: In [0, 1]; `None` when grading failed.
        content_score: In [0, 1]; `None` when grading failed.
    """

    think: str = ""
    action_score: float = Field(ge=0.0, le=1.0, allow_inf_nan=False)
    format_score: float | None = Field(ge=0.0, le=1.0, allow_inf_nan=False)
    content_score: float | None = Field(ge=0.0, le=1.0, allow_inf_nan=False)


class SamplingValues(_Record):
    """How rollouts were sampled; `None` for a value that the model did not get.

    Attributes:
        temperature: 0 for greedy.
        top_p: Nucleus size in (0, 1].
        max_tokens: Longest answer.
        repetition_penalty: 1.0 for none. It falls on the tokens of the prompt too, which names `<stop />`.
    """

    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    repetition_penalty: float | None


class RecordDomain(_Record):
    """What one has to know of a domain to read rollouts; the medical one in files that do not say.

    Attributes:
        name: Of the domain.
        stop_token: By which a rollout ends the interview.
        user: What the one who is asked is called.
        assistant: What the one who asks is called.
    """

    name: str = "medical_en"
    stop_token: str = "<stop />"
    user: str = "patient"
    assistant: str = "doctor"


class TaskWithRollouts(Task):
    """A line of the rollout file.

    Attributes:
        rollouts: The policy's answers to the task.
        policy: Engine and model that gave them, such as `vllm:Qwen/Qwen2.5-7B-Instruct`; `""` in files that do
            not say.
        sampling: What was asked for, `None` in files that do not say.
        sampling_applied: What the engine applied of it, likewise.
        domain: Of the interview.
    """

    rollouts: list[str]
    policy: str = ""
    sampling: SamplingValues | None = None
    sampling_applied: SamplingValues | None = None
    domain: RecordDomain = RecordDomain()


class GradedTask(TaskWithRollouts):
    """A line of the evaluation file: one grade for each rollout, in the same order.

    Attributes:
        grades: Of the rollouts.
        grader: Engine and model that graded, `""` in files that do not say; two evaluations compare when it is
            the same.
        regrades: For each rollout its further grades (`--grade_repeat`), `[]` when each was graded once. They
            measure how far the grader agrees with itself; metrics read `grades`, so that they mean the same for
            any number of repeats.
    """

    grades: list[Grade]
    grader: str = ""
    regrades: list[list[Regrade]] = []

    @model_validator(mode="after")
    def _one_grade_each(self) -> Self:
        """Grades belong to rollouts by their position, so none may be missing."""
        if len(self.grades) != len(self.rollouts):
            raise ValueError(f"{len(self.rollouts)} rollouts but {len(self.grades)} grades")
        if self.regrades and len(self.regrades) != len(self.rollouts):
            raise ValueError(f"{len(self.rollouts)} rollouts but {len(self.regrades)} lists of regrades")
        return self


class Fact(_Record):
    """What the user of a logged session can be asked for.

    Attributes:
        item: `field: value`, as it was extracted.
        said: With what the user answers: the own words of the log, or the value where the log has none to itself.
    """

    item: str
    said: str


class Turn(_Record):
    """One question of an interview and its answer.

    Attributes:
        question: The policy's message; may be empty, and need not be a question.
        answer: The user's.
        facts: Positions of the facts that the answer brings to light, whether they were known or not.
        opening: Whether it is answered with what the user had said in the opening.
    """

    question: str
    answer: str
    facts: list[int]
    opening: bool = False


class Course(_Record):
    """How an interview went after its opening.

    Attributes:
        turns: In order.
        end: The message by which it was stopped, `None` when it was not.
    """

    turns: list[Turn]
    end: str | None


class Interview(_FromSession):
    """A line of the interview file: a policy's whole interview with the user of a logged session.

    Attributes:
        messages: The opening, as in the log.
        facts: What can be found out, at least one.
        max_turns: After how many turns it is broken off, at least 1.
        held: The policy's interview.
        logged: The questions of the logged expert, put to the same user.
        policy: Engine and model.
        user: Who answers: `rules`, or `llm:` with engine and model.
        sampling: What was asked for.
        sampling_applied: What the engine applied of it.
        domain: Of the interview.
    """

    session_id: str
    diagn: Any = None
    messages: list[Message] = Field(min_length=1)
    facts: list[Fact] = Field(min_length=1)
    max_turns: int = Field(ge=1)
    held: Course
    logged: Course
    policy: str
    user: str
    sampling: SamplingValues
    sampling_applied: SamplingValues
    domain: RecordDomain

    @model_validator(mode="after")
    def _known_facts(self) -> Self:
        """Turns name facts by their position, so each must be there."""
        for turn in (*self.held.turns, *self.logged.turns):
            if not all(0 <= fact < len(self.facts) for fact in turn.facts):
                raise ValueError(f"a turn names facts {turn.facts}, there are {len(self.facts)}")
        return self
