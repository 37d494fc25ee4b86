"""The logged expert's own next messages, as rollouts that the same grader can grade (script 3, --grade_reference)."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from tuner.learn_to_ask.cli import check_output, print_summary
from tuner.learn_to_ask.core.domain import Domain, stop_token_in_log
from tuner.learn_to_ask.core.records import Message, Task, TaskWithRollouts
from tuner.learn_to_ask.core.segmentation import runs
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.rollout_files import check_earlier_run
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, write_jsonl

Known = Literal["message", "stop", "nothing"]  # of what the expert did next

_LOGGED = "logged "  # before the expert's name; engines are named with a colon


def is_reference(policies: Iterable[str]) -> bool:
    """Whether rollouts are a logged expert's messages and no policy's.

    Args:
        policies: Every `policy` that their records name.
    """
    names = list(policies)
    return bool(names) and all(name.startswith(_LOGGED) for name in names)


def next_message(task: Task, dialogue: Sequence[Message], domain: Domain) -> str | None:
    """What the logged expert said next, `None` where it cannot be known.

    Messages that follow each other are one. Where the log stops, and where the expert wrote the end marker, it is the
    stop token.

    Args:
        task: Whose context the message follows.
        dialogue: The longest context of the session.
        domain: Its end marker and its stop token.
    """
    if task.decision_truth == "stop":
        return domain.stop_token
    length = len(task.messages)
    if list(dialogue[:length]) != task.messages:
        return None
    for role, said in runs(dialogue[length:]):
        if role != "assistant":
            return None
        return domain.stop_token if domain.end_marker in map(str.strip, said) else "\n".join(said)
    return None


def longest_contexts(tasks: Iterable[Task]) -> dict[str, list[Message]]:
    """Session -> the longest context among its samples, which holds what was said after the shorter ones."""
    longest: dict[str, list[Message]] = {}
    for task in tasks:
        if len(task.messages) > len(longest.get(task.session_id, ())):
            longest[task.session_id] = task.messages
    return longest


def reference_rollouts(test_file: Path, domain: Domain, found: Counter[Known]) -> Iterator[TaskWithRollouts]:
    """The reference of every task whose next message is known; each session is in memory once.

    Args:
        test_file: Tasks in any order; its bad lines are passed over, as `roll_out` does.
        domain: Its end marker, its stop token and the expert's name.
        found: Gets what is known of the tasks.

    Raises:
        UserError: When the stop token is in the log.
    """

    def tasks() -> Iterator[Task]:
        return read_jsonl(test_file, Task, unique_key="cid", report=ReadReport(), strict=False, quiet=True)

    dialogues = longest_contexts(tasks())
    for task in tasks():
        if domain.stops_in(task.messages):
            raise UserError(f"--test_file_path {test_file}: cid {task.cid!r}: {stop_token_in_log(domain)}")
        message = next_message(task, dialogues[task.session_id], domain)
        found["nothing" if message is None else "stop" if message == domain.stop_token else "message"] += 1
        if message is not None:
            yield TaskWithRollouts(
                **task.model_dump(),
                rollouts=[message],
                policy=_LOGGED + domain.speakers.assistant,
                domain=domain.of_record,
            )


def reference_files(rollout_file: Path, eval_file: Path) -> tuple[Path, Path]:
    """Where the reference's rollouts and grades lie: beside the policy's."""
    return rollout_file.with_name(f"reference_{rollout_file.name}"), eval_file.with_name(f"reference_{eval_file.name}")


def check_reference(
    test_file: Path,
    rollout_file: Path,
    eval_file: Path,
    *,
    domain: Domain,
    grade_repeat: int,
    resume: bool,
    overwrite: bool,
) -> None:
    """Makes sure, before anything is paid for, that there will be a reference to grade.

    Args:
        test_file: Tasks.
        rollout_file: Of the reference.
        eval_file: The same.
        domain: See `reference_rollouts`.
        grade_repeat: Gradings that each message must have.
        resume: Whether what is there is to be gone on with.
        overwrite: Whether it is to be replaced.

    Raises:
        UserError: When no message of the expert can be known, or something is in the way.
    """
    check_earlier_run(
        test_file,
        rollout_file,
        eval_file,
        rollout_repeat=1,
        grade_repeat=grade_repeat,
        max_missing=1.0,
        resume=resume,
        overwrite=overwrite,
    )
    if not resume:
        check_output(rollout_file, "--grade_reference", overwrite=overwrite)
    found: Counter[Known] = Counter()
    for _ in reference_rollouts(test_file, domain, found):
        pass
    if not found["message"]:
        raise UserError(
            f"--grade_reference: {test_file} tells no next message of the {domain.speakers.assistant}: no sample's "
            "context goes on in another sample of its session; name a test set of whole sessions, or leave the flag out"
        )


def grade_reference(
    grade: Callable[..., int], test_file: Path, rollout_file: Path, eval_file: Path, *, domain: Domain
) -> int:
    """Writes the reference's rollouts and has them graded.

    Args:
        grade: `evaluate`, ready but for the files of rollouts and grades.
        test_file: Tasks, for which `check_reference` found no fault.
        rollout_file: Of the reference; what is there is written again, for it follows from the tasks.
        eval_file: Of the reference.
        domain: See `reference_rollouts`.

    Returns:
        The exit code.
    """
    started = time.monotonic()
    found: Counter[Known] = Counter()
    write_jsonl(rollout_file, reference_rollouts(test_file, domain, found))
    rows = [("logged messages", found["message"]), ("logged stops", found["stop"])]
    left_out = [("left out, next message unknown", found["nothing"])] if found["nothing"] else []
    print_summary(f"reference: {rollout_file}", [*rows, *left_out], started=started)
    return grade(rollout_file=rollout_file, eval_file=eval_file, when="the logged messages")
