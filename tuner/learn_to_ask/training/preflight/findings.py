"""Findings of the preflight: their words, their exit code, and what keeps one check from stopping the others."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_UNUSABLE
from tuner.learn_to_ask.errors import UserError

Level = Literal["ok", "warning", "fatal"]
ResultT = TypeVar("ResultT")

EXAMPLES = 3  # how many bad lines or tasks a verdict names


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        level: `fatal` keeps the run from starting.
        check: What was checked.
        verdict: One line, with what to change where something is wrong.
        details: Further lines, such as a table.
    """

    level: Level
    check: str
    verdict: str
    details: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """2 when a finding is fatal, else 0."""
    return EXIT_UNUSABLE if any(finding.level == "fatal" for finding in findings) else EXIT_DONE


def print_findings(findings: Sequence[Finding]) -> None:
    """Prints a line for each finding, its details below it, and the count of what is wrong."""
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        print(f"{finding.level:<7}  {finding.check:<{width}}  {finding.verdict}")
        for line in finding.details.splitlines():
            print(f"{'':<7}  {'':<{width}}  {line}")
    levels = [finding.level for finding in findings]
    print(f"preflight: {len(findings)} findings, {levels.count('fatal')} fatal, {levels.count('warning')} warnings")


def guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; what it raises becomes one, so that the others still run."""
    try:
        return check()
    except UserError as error:
        return [Finding("fatal", name, str(error))]
    except Exception as error:
        return [Finding("warning", name, f"could not be checked: {one_line(error)}")]


def one_line(error: object) -> str:
    """An error on one short line, the Tinker key blotted out should it be quoted."""
    text = " ".join(str(error).split()) or type(error).__name__
    key = os.environ.get("TINKER_API_KEY")
    return (text.replace(key, "***") if key else text)[:300]


def within(seconds: float, function: Callable[[], ResultT]) -> ResultT:
    """Calls a function that may hang.

    Raises:
        TimeoutError: When it has not returned in time; it is left behind in a daemon thread.
    """
    results: list[ResultT] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(function())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def listed(names: list[str]) -> str:
    """The first names and how many more."""
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def gigabytes(size: float) -> str:
    """Bytes for reading."""
    return f"{size / 1e9:.1f} GB"
