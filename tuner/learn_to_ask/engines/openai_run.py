"""How a run of many requests goes: what became of each, when the whole has to stop, the thread it runs in."""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

from tuner.learn_to_ask.engines.base import Reply
from tuner.learn_to_ask.errors import UserError

# Why a request has no answer: it alone is at fault; the server refuses what we send; nobody listens; the rest.
Trouble = Literal["request", "refused", "unreachable", "failed"]

_GRACE_SECONDS = 30.0  # when a run has to stop: time for answers that are under way and paid for
_REFUSED_FIRST = 3  # so many refusals before any answer are the settings' fault
_WINDOW, _WINDOW_LEAST, _WINDOW_FAILED = 50, 20, 0.9
RESUMABLE = "finished results are kept, --resume continues"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request after all its tries.

    Attributes:
        reply: For the caller.
        trouble: `None` when it was answered.
        detail: What the server or the network said about the trouble.
        end: Why the whole run has to stop.
    """

    reply: Reply
    trouble: Trouble | None = None
    detail: str = ""
    end: UserError | None = None


class AttemptError(Exception):
    """One try that brought no answer."""

    def __init__(
        self,
        reason: str,
        *,
        trouble: Trouble = "failed",
        detail: str = "",
        wait: float = 0.0,
        max_retries: int = sys.maxsize,
    ) -> None:
        super().__init__(reason)
        self.reason = reason  # few different ones: the summary counts by it
        self.trouble: Trouble = trouble
        self.detail = detail
        self.wait = wait
        self.max_retries = max_retries


class Health:
    """Decides when a run has to stop because the server does not answer."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._answered = False
        self._refused = 0
        self._failed: deque[bool] = deque(maxlen=_WINDOW)

    def note(self, outcome: Outcome) -> UserError | None:
        """Counts an outcome; returns the error to stop with."""
        if outcome.trouble == "request":
            return None
        self._failed.append(outcome.trouble is not None)
        self._answered |= outcome.trouble is None
        self._refused += outcome.trouble == "refused"
        if not self._answered and self._refused >= _REFUSED_FIRST:
            return UserError(
                f"{self._host} refused the first requests with {reason_of(outcome)} - if it names repetition_penalty "
                "or chat_template_kwargs, which plain OpenAI servers do not know, leave them out (--no-extra_body)"
            )
        failed = sum(self._failed)
        if len(self._failed) >= _WINDOW_LEAST and failed > _WINDOW_FAILED * len(self._failed):
            return UserError(
                f"{self._host}: {failed} of the last {len(self._failed)} requests failed after all retries, the last "
                f"with {reason_of(outcome)} - check the server; {RESUMABLE}"
            )
        return None

    def check_last(self, held: list[Outcome]) -> None:
        """Looks at the failures that no answer followed.

        Raises:
            UserError: When nobody listens; other failures may be the fault of the requests.
        """
        for outcome in held:
            if outcome.trouble == "unreachable":
                raise UserError(
                    f"{self._host}: {reason_of(outcome)} - check that the server runs and the base URL; {RESUMABLE}"
                )


class LoopThread:
    """An event loop in a thread of its own, so that transfers go on while the caller works."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a run that ends without close() ends all the same.
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Outcome]) -> Future[Outcome]:
        """Starts a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], object]) -> None:
        """Calls a function in the thread of the loop, where asyncio objects may be touched."""
        self._loop.call_soon_threadsafe(function)

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Cancels everything, awaits `last()` and ends the thread."""
        if self._loop.is_closed():
            return

        async def finish() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await last()

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def last_answers(done: SimpleQueue[Future[Outcome]], running: set[Future[Outcome]]) -> Iterator[Reply]:
    """The answers that still come in when a run has to stop, which are paid for; failures count as never asked."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while running:
        try:
            future = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return
        running.remove(future)
        outcome = future.result()
        if outcome.trouble is None and outcome.end is None:
            yield outcome.reply


def reason_of(outcome: Outcome) -> str:
    """Why a request failed, with what the other side said."""
    return f"{outcome.reply.error}: {outcome.detail}" if outcome.detail else outcome.reply.error
