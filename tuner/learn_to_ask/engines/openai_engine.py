"""The `openai` engine: many requests at a time; ends a run on evidence that none can succeed."""

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

from tuner.learn_to_ask.engines.base import Applied, Reply, Request, Sampling
from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.engines.openai_api import ChatClient, pass_over_unclosed
from tuner.learn_to_ask.engines.openai_reply import AttemptError
from tuner.learn_to_ask.errors import UserError

_GRACE_SECONDS = 30.0  # when a run has to stop: time for answers that are under way and paid for
_PROBE_AFTER = 3  # refusals without an answer in between
_WINDOW, _WINDOW_LEAST, _WINDOW_FAILED = 50, 20, 0.9
RESUMABLE = "finished results are kept, --resume continues"

ResultT = TypeVar("ResultT")
_Outcome = tuple[Reply, AttemptError | None]


class OpenAIEngine:
    """Answers conversations through `POST {base_url}/chat/completions`.

    Never more than `concurrency` requests for each server are pulled and not yet answered, so that is what a kill can
    lose. Requests that were refused or failed after their retries are held back until there is evidence whose fault it
    is: another request is answered, or a harmless question of our own is. Without it the run stops, and they count as
    never asked.

    Attributes:
        description: Model and first server, without credentials.
    """

    def __init__(self, endpoint: Endpoint, *, concurrency: int = 32) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: Who answers.
            concurrency: Requests under way at once, at each server.

        Raises:
            UserError: When the URL, the key or a proxy cannot be used.
        """
        self._client = ChatClient(endpoint, places=concurrency)
        self.description = self._client.description
        self._places = concurrency * len(self._client.servers.all)
        self._checked = False
        self._window: deque[bool] = deque(maxlen=_WINDOW)
        self._loop = asyncio.new_event_loop()
        pass_over_unclosed(self._loop)
        self._call = self._loop.call_soon_threadsafe
        # A thread, so that transfers go on while the caller works; a daemon, so that a run can end without close().
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()

    @property
    def resent(self) -> int:
        """How often a request was sent again because of the network or the server."""
        return self._client.resent

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies as they finish; pulls requests in the caller's thread, one for each free place.

        Raises:
            UserError: When going on is pointless; what was under way and still succeeds is yielded before.
        """
        stream, stop = iter(requests), asyncio.Event()
        running: set[asyncio.Task[_Outcome]] = set()  # of the loop's thread; `under_way` counts for this one
        finished: SimpleQueue[asyncio.Task[_Outcome]] = SimpleQueue()
        held: list[_Outcome] = []
        under_way = 0

        def start(request: Request) -> None:
            task = self._loop.create_task(self._answer(request, sampling, stop))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(finished.put)

        def cancel() -> None:
            for task in running:
                task.cancel()

        try:
            while True:
                while under_way < self._places and (request := next(stream, None)) is not None:
                    self._check(sampling)
                    self._call(start, request)
                    under_way += 1
                last = not under_way
                if last and not held:
                    return
                if not last:
                    reply, error = finished.get().result()
                    under_way -= 1
                    if error and error.trouble == "request":
                        yield reply
                        continue
                    held.append((reply, error))
                    self._window.append(error is not None and error.trouble != "answer")
                verdict = self._verdict(held, sampling, last=last)
                if isinstance(verdict, UserError):
                    self._call(stop.set)
                    self._call(self._loop.call_later, _GRACE_SECONDS, cancel)
                    yield from _answered(finished.get() for _ in range(under_way))
                    raise verdict
                if last or verdict == "well":
                    yield from (reply for reply, _ in held)
                    held.clear()
        finally:
            if not self._loop.is_closed():
                self._call(cancel)

    def applied(self, sampling: Sampling) -> Applied:
        """What is sent: servers may refuse fields, and some know no repetition penalty and do not say so."""
        return self._client.applied(sampling)

    def summary(self) -> list[tuple[str, object]]:
        """How often trouble with network or server made it send a request again."""
        return [("sent again", self.resent)]

    def close(self) -> None:
        """Cancels what is under way and closes the connections."""
        if not self._loop.is_closed():
            self._run(self._finish())
            self._call(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _check(self, sampling: Sampling) -> None:
        """Has several servers checked, once."""
        if not self._checked:
            self._run(self._client.check(sampling))
            self._checked = True

    def _run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Runs something on the loop and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _finish(self) -> None:
        """The end of all that the loop does."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    async def _answer(self, request: Request, sampling: Sampling, stop: asyncio.Event) -> _Outcome:
        """Has one request answered, or says why it is not."""
        answers = await self._client.ask(request.messages, sampling, stop=stop)
        failure = answers.failure
        reply = Reply(
            request.key,
            answers.texts,
            answers.prompt_tokens,
            answers.completion_tokens,
            failure.reason if failure else answers.error,
            failure is not None and failure.trouble in ("request", "refused"),
            tuple(answers.cut_off) if any(answers.cut_off) else (),
        )
        return reply, failure

    def _verdict(
        self, held: list[_Outcome], sampling: Sampling, *, last: bool
    ) -> Literal["well", "unknown"] | UserError:
        """Whether the server answers, so that what failed is the fault of single requests, or why the run has to stop.

        Args:
            held: Outcomes since the last answer, the newest last.
            sampling: Of the run.
            last: No request is left that could be answered yet.
        """
        _, newest = held[-1]
        if newest is None or newest.trouble == "answer":
            return "well"
        suspects = sum(error is not None and error.trouble in ("refused", "unreachable") for _, error in held)
        if suspects >= _PROBE_AFTER or (suspects and last):
            error = self._run(self._client.probe(sampling))
            return self._stop(error) if error and error.trouble != "answer" else "well"
        failed = sum(self._window)
        if len(self._window) >= _WINDOW_LEAST and failed > _WINDOW_FAILED * len(self._window):
            return UserError(
                f"{newest.address.host}: {failed} of the last {len(self._window)} requests failed after all "
                f"retries, the last with {newest.said} - check the server; {RESUMABLE}"
            )
        return "unknown"

    def _stop(self, error: AttemptError) -> UserError:
        """The end of a run that nobody answers."""
        said = f" answered {error.said}" if error.status else f": {error.said}"
        return UserError(f"{error.address.host}{said} - {self._client.advice(error)}; {RESUMABLE}")


def _answered(tasks: Iterable["asyncio.Task[_Outcome]"]) -> Iterator[Reply]:
    """The replies of those tasks that were answered, which is paid for; the others count as never asked."""
    for task in tasks:
        if not task.cancelled() and task.result()[1] is None:
            yield task.result()[0]
