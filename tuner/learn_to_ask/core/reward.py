"""The reward, defined once for training and evaluation (spec section 6)."""

from dataclasses import dataclass
from typing import Literal, get_args

from tuner.learn_to_ask.core.records import Decision, Grade

TrainMode = Literal["Ra+Rs", "Ra", "Rs"]
FusionMode = Literal["default", "sum"]
TRAIN_MODES: tuple[TrainMode, ...] = get_args(TrainMode)
FUSION_MODES: tuple[FusionMode, ...] = get_args(FusionMode)

STOP = "<stop />"  # of the medical domain, and of every other that does not say otherwise


@dataclass(frozen=True, slots=True)
class Scores:
    """What a grader says of one question: both scores in [0, 1], and why."""

    format_score: float
    content_score: float
    think: str = ""


def decision(response: str, stop_token: str = STOP) -> Decision:
    """The decision a response stands for: `"stop"` when it holds the stop token anywhere."""
    return "stop" if stop_token in response else "continue"


def needs_grader(response: str, decision_truth: Decision, stop_token: str = STOP) -> bool:
    """Whether only a grader can score the response: it says something, and goes on where that is right."""
    return decision_truth == "continue" == decision(response, stop_token) and bool(response.strip())


def grade(response: str, decision_truth: Decision, scores: Scores | None = None, stop_token: str = STOP) -> Grade:
    """Scores one response against the observed decision.

    Args:
        response: The policy's text, free of special tokens.
        decision_truth: The label of the task.
        scores: The grader's scores; only read where `needs_grader` holds. `None` there means that grading
            failed, and leaves both scores open.
        stop_token: Of the domain.

    Returns:
        The grade; format and content are `None` only after a failed grading.
    """
    if decision(response, stop_token) != decision_truth:
        return Grade(action_score=0.0, format_score=0.0, content_score=0.0)
    if decision_truth == "stop":
        return Grade(action_score=1.0, format_score=1.0 if response == stop_token else 0.0, content_score=1.0)
    if not response.strip():  # a policy that says nothing has not stopped, and has asked nothing
        return Grade(action_score=1.0, format_score=0.0, content_score=0.0)
    if scores is None:
        return Grade(action_score=1.0, format_score=None, content_score=None)
    return Grade(
        think=scores.think,
        action_score=1.0,
        format_score=scores.format_score,
        content_score=scores.content_score,
    )


def reward(
    *,
    action_score: float,
    content_score: float,
    format_score: float,
    train_mode: TrainMode = "Ra+Rs",
    fusion_mode: FusionMode = "default",
) -> float:
    """Fuses the three scores into one reward.

    R_a is the quality of the *action* (the question asked), R_s the assessment of the *state* (go on or
    stop). The gated default pays for a good question only when asking was right:

        Ra+Rs, default  action * (1 + 2 * content) + format    in [0, 4]
        Ra+Rs, sum      action + content + format              in [0, 3]
        Ra              2 * content + format                   in [0, 3]
        Rs              3 * action + format                    in [0, 4]

    Args:
        action_score: 1.0 for the right decision, else 0.0.
        content_score: In [0, 1].
        format_score: In [0, 1].
        train_mode: Which signals count.
        fusion_mode: How `Ra+Rs` combines them; without meaning for the other modes.

    Raises:
        ValueError: For a mode that does not exist.
    """
    if train_mode == "Ra":
        return 2 * content_score + format_score
    if train_mode == "Rs":
        return 3 * action_score + format_score
    if train_mode != "Ra+Rs":
        raise ValueError(f"train_mode {train_mode!r} is none of {', '.join(TRAIN_MODES)}")
    if fusion_mode == "default":
        return action_score * (1 + 2 * content_score) + format_score
    if fusion_mode == "sum":
        return action_score + content_score + format_score
    raise ValueError(f"fusion_mode {fusion_mode!r} is none of {', '.join(FUSION_MODES)}")
