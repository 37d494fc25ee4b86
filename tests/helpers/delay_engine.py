"""An engine with a known delay that a replica can hold: it works on some conversations at a time, as vLLM does."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from tuner.learn_to_ask.engines.base import Applied, Reply, Request, Sampling, as_asked
from tuner.learn_to_ask.errors import UserError

POISON = "this kills whatever reads it"
REFUSED = "no engine takes this"


class DelayEngine:
    """Answers every conversation with its own last message, some time after it was begun.

    Attributes:
        places: Twice what it works on at a time, so that no place stays empty.
    """

    def __init__(self, number: int, *, seconds: float, slots: int = 4, log: Path | None = None) -> None:
        """Loads at once.

        Args:
            number: Of its replica.
            seconds: That an answer takes.
            slots: Answers at a time.
            log: A folder that gets a file for each replica: its process, then the keys that it was asked.
        """
        self.description = "delay"
        self.places = 2 * slots
        self._seconds = seconds
        self._slots = slots
        self._log = log and log / f"{number}.log"
        self._note(os.getpid())

    def _note(self, what: int) -> None:
        if self._log:
            with self._log.open("a") as file:
                file.write(f"{what}\n")

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies as they finish."""
        stream = iter(requests)
        queue: deque[Request] = deque()
        working: deque[tuple[float, Request]] = deque()
        while True:
            while len(queue) + len(working) < self.places and (request := next(stream, None)) is not None:
                self._note(request.key)
                self._read(request.messages[-1]["content"])
                queue.append(request)
            while queue and len(working) < self._slots:
                working.append((time.monotonic() + self._seconds, queue.popleft()))
            if not working:
                return
            time.sleep(max(0.0, working[0][0] - time.monotonic()))
            now = time.monotonic()
            while working and working[0][0] <= now:
                _, request = working.popleft()
                yield Reply(request.key, [request.messages[-1]["content"]] * sampling.n, 10, sampling.n)

    def _read(self, text: str) -> None:
        if text == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        if text == REFUSED:
            raise UserError(f"{REFUSED}: lower something")

    def applied(self, sampling: Sampling) -> Applied:
        return as_asked(sampling)

    def summary(self) -> list[tuple[str, object]]:
        return [("prompts shortened", 1)]

    def close(self) -> None:
        """Holds nothing."""


def only_first(number: int, *, seconds: float) -> DelayEngine:
    """Loads for the first replica alone."""
    if number != 1:
        raise UserError("this cannot be loaded")
    return DelayEngine(number, seconds=seconds)


def refuse(number: int) -> DelayEngine:
    """Loads for none."""
    raise UserError("this cannot be loaded")
