"""What every command line shares: exit codes, one-line errors, progress and the closing summary."""

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TypeVar

from tuner.learn_to_ask.errors import BudgetReachedError, UserError
from tuner.learn_to_ask.storage import check_writable

EXIT_DONE = 0
EXIT_FAILURES = 1  # finished, but more samples failed than --max_failures allows; or stopped at its budget
EXIT_UNUSABLE = 2  # unusable input or settings
EXIT_INTERRUPTED = 130  # resumable
EXIT_UNREAD = 141  # nobody reads the output any more
EXIT_TERMINATED = 143  # by SIGTERM, resumable

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)

ItemT = TypeVar("ItemT")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there are any and keeps the examples in descriptions as they are typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def run(command: Callable[[], int]) -> None:
    """Runs a command and exits with its code; a `UserError` becomes one line and exit code 2."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_UNREAD
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_UNUSABLE
    except BudgetReachedError as error:
        print(f"stopped: {error}", file=sys.stderr)
        code = EXIT_FAILURES
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        place = error.filename or "an output file"
        print(f"error: {error.strerror}: {place}; finished results are kept, run it again", file=sys.stderr)
        code = EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; where there is a --resume, it continues", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code)


def check_output(path: Path, flag: str, *, overwrite: bool) -> None:
    """Makes the folder of an output, and refuses to touch a finished one unless told to.

    Raises:
        UserError: When the output exists, its folder cannot be made, or its name promises a format that is not written,
            saying what to do.
    """
    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file")
    check_writable(path, flag)
    if path.exists() and not overwrite:
        raise UserError(f"{flag} {path}: exists; pass --overwrite to replace it, or name another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {path}: its folder cannot be made: {error.strerror}; name another file") from error


def progress(items: Iterable[ItemT], *, title: str, total: int | None, unit: str) -> Generator[ItemT, None, None]:
    """Passes items on and shows a bar on a terminal; says nothing when the output is none.

    Args:
        items: What to count.
        title: Stands before the bar.
        total: How many there will be, when known.
        unit: What is counted, in the plural.
    """
    from tqdm import tqdm

    yield from tqdm(items, desc=title, total=total, unit=f" {unit}", disable=None, leave=False)


def print_summary(title: str, rows: Iterable[tuple[str, object]], *, started: float) -> None:
    """Prints the one-screen summary that ends a run.

    Args:
        title: What was done.
        rows: Label and value, in order; counts of zero may be left out by the caller.
        started: `time.monotonic()` at the start of the run.
    """
    lines = [*rows, ("seconds", f"{time.monotonic() - started:.1f}")]
    width = max(len(label) for label, _ in lines)
    print(title)
    for label, value in lines:
        print(f"  {label:<{width}}  {value}")
