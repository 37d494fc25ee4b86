"""Child processes that never outlive the quickstart, with logs that are kept and shown when one fails."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tuner.learn_to_ask.errors import UserError

_SHOWN_LINES = 20


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def require_free_port(port: int) -> None:
    """Checks that nothing listens on a loopback port.

    Raises:
        UserError: When the port is in use.
    """
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"--port {port}: in use; name another one, or 0 for any free one") from error


@contextmanager
def child_process(command: Sequence[str], *, log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a process with all output in a log, and ends it with all its children in every case.

    Args:
        command: Program and arguments.
        log: Gets stdout and stderr.
        env: The whole environment.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:  # what a former part of the run said stays
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            yield process
        finally:
            _end_family(process)


def _end_family(process: subprocess.Popen[bytes]) -> None:
    """Asks a process and all its descendants to end, and ends those that have not within ten seconds."""
    try:
        descendants = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        descendants = []
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(descendants, timeout=5)
    for descendant in alive:
        with suppress(psutil.NoSuchProcess):
            descendant.kill()


def run_to_end(
    command: Sequence[str],
    *,
    log: Path,
    env: dict[str, str],
    watch: Callable[[], None] | None = None,
) -> None:
    """Runs a process to its end.

    Args:
        command: Program and arguments.
        log: Gets its output.
        env: The whole environment.
        watch: Called twice a second meanwhile.

    Raises:
        UserError: When it fails, with the last lines of its log.
    """
    with child_process(command, log=log, env=env) as process:
        while process.poll() is None:
            if watch:
                watch()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
        if watch:
            watch()
        if process.returncode:
            show_log(log)
            raise UserError(f"{Path(command[1]).name} exited with {process.returncode}; its log is {log}")


def end_when(
    reached: Callable[[], bool],
    command: Sequence[str],
    *,
    log: Path,
    env: dict[str, str],
    how: signal.Signals = signal.SIGKILL,
    timeout: float = 900.0,
) -> int:
    """Starts a process and sends it, and none of its children, a signal once something has come true.

    Args:
        reached: Asked five times a second.
        command: Program and arguments.
        log: Gets its output.
        env: The whole environment.
        how: The signal.
        timeout: Seconds to wait at most.

    Returns:
        Its exit code, negative for a signal that it did not handle.

    Raises:
        UserError: When it ended before, or nothing came true in time.
    """
    with child_process(command, log=log, env=env) as process:
        end = time.monotonic() + timeout
        while process.poll() is None and not reached() and time.monotonic() < end:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
        if process.poll() is not None or not reached():
            show_log(log)
            raise UserError(f"{Path(command[1]).name} ended with {process.poll()} too early; its log is {log}")
        process.send_signal(how)
        return process.wait(timeout=60)


def wait_for_server(process: subprocess.Popen[bytes], url: str, *, log: Path, timeout: float) -> None:
    """Waits until a server answers.

    Args:
        process: The server.
        url: Answers with 200 when the server is ready.
        log: Its log.
        timeout: Seconds to wait at most.

    Raises:
        UserError: When it ends or does not answer in time, with the last lines of its log.
    """
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError), urllib.request.urlopen(url, timeout=2):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
            break
    show_log(log)
    state = (
        f"ended with {process.returncode}" if process.returncode is not None else f"did not answer in {timeout:.0f} s"
    )
    raise UserError(f"the engine {state}; its log is {log}")


def show_log(log: Path) -> None:
    """Prints the last lines of a log to stderr."""
    lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
    print("\n".join(["", f"--- the last lines of {log}", *lines, "---"]), file=sys.stderr)
