"""The `openai` engine: many requests to one endpoint at a time; ends a run on evidence that none can succeed."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

from tuner.learn_to_ask.engines.base import Applied, Reply, Request, Sampling
from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_api import ChatClient
from tuner.learn_to_ask.engines.openai_reply import AttemptError
from tuner.learn_to_ask.errors import UserError

_GRACE_SECONDS = 30.0  # when a run has to stop: time for answers that are under way and paid for
_PROBE_AFTER = 3  # refusals without an answer in between
_WINDOW, _WINDOW_LEAST, _WINDOW_FAILED = 50, 20, 0.9
_PROBE = [{"role": "user", "content": "Reply with the word ready."}]
RESUMABLE = "finished results are kept, --resume continues"

_Verdict = Literal["well", "unknown"]
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a request after all its tries; `error` is `None` when it was answered."""

    reply: Reply
    error: AttemptError | None = None

    @property
    def trouble(self) -> str:
        """Whose fault it is that there is no answer, `""` when there is one."""
        return self.error.trouble if self.error else ""


class OpenAIEngine:
    """Answers conversations through `POST {base_url}/chat/completions`.

    Never more than `concurrency` requests are pulled and not yet answered, so that is what a kill can lose.
    Requests that were refused or failed after their retries are held back until there is evidence whose fault it is:
    another request is answered, or a harmless question of our own is. Without it the run stops, and they count as
    never asked.

    Attributes:
        description: Model and server, without credentials.
    """

    def __init__(self, endpoint: Endpoint, *, concurrency: int = 32) -> None:
        """Prepares the connections; nothing is sent yet.

        Args:
            endpoint: Who answers.
            concurrency: Requests under way at once.

        Raises:
            UserError: When the URL, the key or a proxy cannot be used.
        """
        self._client = ChatClient(endpoint)
        self.description = self._client.description
        self._concurrency = concurrency
        self._window: deque[bool] = deque(maxlen=_WINDOW)
        self._loop = _LoopThread()

    @property
    def resent(self) -> int:
        """How often a request was sent again because of the network or the server."""
        return self._client.resent

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies as they finish; pulls requests in the caller's thread, one for each free place.

        Raises:
            UserError: When going on is pointless; what was under way and still succeeds is yielded before.
        """
        stream = iter(requests)
        stop = asyncio.Event()
        done: SimpleQueue[Future[_Outcome]] = SimpleQueue()
        running: set[Future[_Outcome]] = set()
        held: list[_Outcome] = []
        try:
            while True:
                while len(running) < self._concurrency and (request := next(stream, None)) is not None:
                    future = self._loop.submit(self._answer(request, sampling, stop))
                    running.add(future)
                    future.add_done_callback(done.put)
                if not running:
                    break
                future = done.get()
                running.remove(future)
                outcome = future.result()
                if outcome.trouble == "request":
                    yield outcome.reply
                    continue
                held.append(outcome)
                self._window.append(outcome.trouble not in ("", "answer"))
                verdict = self._verdict(held, sampling, last=False)
                if isinstance(verdict, UserError):
                    self._loop.call(stop.set)
                    yield from _last_answers(done, running)
                    raise verdict
                if verdict == "well":
                    yield from (earlier.reply for earlier in held)
                    held.clear()
            if held and isinstance(verdict := self._verdict(held, sampling, last=True), UserError):
                raise verdict
            yield from (outcome.reply for outcome in held)
        finally:
            for future in running:
                future.cancel()

    def applied(self, sampling: Sampling) -> Applied:
        """What is sent: servers may refuse fields, and some know no repetition penalty and do not say so."""
        return self._client.applied(sampling)

    def summary(self) -> list[tuple[str, object]]:
        """How often trouble with network or server made it send a request again."""
        return [("sent again", self.resent)]

    def close(self) -> None:
        """Cancels what is under way and closes the connections."""
        self._loop.close(self._client.close)

    async def _answer(self, request: Request, sampling: Sampling, stop: asyncio.Event) -> _Outcome:
        """Has one request answered, or says why it is not."""
        try:
            answers = await self._client.ask(request.messages, sampling, stop=stop)
        except AttemptError as error:
            final = error.trouble in ("request", "refused")
            reply = Reply(request.key, [], error.prompt_tokens, error.completion_tokens, error.reason, final)
            return _Outcome(reply, error)
        tokens = (answers.prompt_tokens, answers.completion_tokens)
        cut_off = tuple(answers.cut_off) if any(answers.cut_off) else ()
        return _Outcome(Reply(request.key, answers.texts, *tokens, answers.error, cut_off=cut_off))

    def _verdict(self, held: list[_Outcome], sampling: Sampling, *, last: bool) -> _Verdict | UserError:
        """Whether the server answers, so that what failed is the fault of single requests, or why the run has to stop.

        Args:
            held: Outcomes since the last answer, the newest last.
            sampling: Of the run.
            last: No request is left that could be answered yet.
        """
        if held[-1].trouble in ("", "answer"):
            return "well"
        suspects = sum(outcome.trouble in ("refused", "unreachable") for outcome in held)
        if suspects >= _PROBE_AFTER or (suspects and last):
            error = self._loop.submit(self._probe(sampling)).result()
            return self._stop(error) if error else "well"
        failed = sum(self._window)
        if len(self._window) >= _WINDOW_LEAST and failed > _WINDOW_FAILED * len(self._window) and held[-1].error:
            return UserError(
                f"{self._client.host}: {failed} of the last {len(self._window)} requests failed after all retries, the "
                f"last with {held[-1].error.said} - check the server; {RESUMABLE}"
            )
        return "unknown"

    async def _probe(self, sampling: Sampling) -> AttemptError | None:
        """Asks something harmless; why that is not answered either."""
        try:
            await self._client.ask(_PROBE, replace(sampling, n=1), patient=False)
        except AttemptError as error:
            return None if error.trouble == "answer" else error
        return None

    def _stop(self, error: AttemptError) -> UserError:
        """The end of a run that nobody answers."""
        said = f"answered {error.said}" if error.status else error.said
        separator = " " if error.status else ": "
        return UserError(f"{self._client.host}{separator}{said} - {self._client.advice(error)}; {RESUMABLE}")


class _LoopThread:
    """An event loop in a thread of its own, so that transfers go on while the caller works."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report)
        # A daemon, so that a run that ends without close() ends all the same.
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, ResultT]) -> "Future[ResultT]":
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


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """As asyncio does, but for connections that a run leaves open when it is interrupted."""
    if not str(context.get("message")).startswith("Unclosed"):
        loop.default_exception_handler(context)


def _last_answers(done: "SimpleQueue[Future[_Outcome]]", running: "set[Future[_Outcome]]") -> Iterator[Reply]:
    """The answers that still come in when a run has to stop, which are paid for; failures count as never asked."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while running:
        try:
            future = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return
        running.remove(future)
        outcome = future.result()
        if outcome.error is None:
            yield outcome.reply
