"""The `openai` engine: any server with an OpenAI-compatible chat endpoint, many requests at a time."""

import asyncio
import ipaddress
import json
import os
import random
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

import httpx

from tuner.learn_to_ask.engines.base import Reply, Request, Sampling
from tuner.learn_to_ask.errors import UserError

if TYPE_CHECKING:
    from concurrent.futures import Future

# Why a request has no answer: it alone is at fault; the server refuses what we send; nobody listens; the rest.
Trouble = Literal["request", "refused", "unreachable", "failed"]

_RETRIED_STATUS = frozenset({408, 409, 425, 429})  # and everything from 500
_REFUSED_STATUS = frozenset({400, 413, 422})
_ABOUT_ONE_REQUEST = re.compile(
    r"context[ _](length|window)|maximum (model|context|input|prompt)|too (long|large)|too many tokens|longer than"
    r"|content[ _](policy|filter|management)|moderation|inappropriate",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(r"insufficient[ _](quota|balance|credit|fund)", re.IGNORECASE)

_LONGEST_BACKOFF = 60.0
_LONGEST_RETRY_AFTER = 600.0  # a server that wants more than this is better asked again in a later run
_EMPTY_ANSWER_RETRIES = 2  # such answers are paid for, and mostly come back the same
_KEEP_ALIVE_SECONDS = 4.0  # below the 5 s after which uvicorn (vLLM) hangs up
_GRACE_SECONDS = 30.0  # when a run has to stop: time for answers that are under way and paid for
_REFUSED_FIRST = 3  # so many refusals before any answer are the settings' fault
_WINDOW, _WINDOW_LEAST, _WINDOW_FAILED = 50, 20, 0.9
_SHORTEST_SECRET = 6  # placeholders such as EMPTY are no secrets, and are words
_MESSAGE_LENGTH = 300
_RESUMABLE = "finished results are kept, --resume continues"


class OpenAIEngine:
    """Answers conversations through `POST {base_url}/chat/completions`.

    Never more than `concurrency` requests are pulled and not yet answered, so that is what a kill can lose.
    Requests that failed after their retries are held back until the next answer shows that the server is
    alive; if it is not, the run stops and they count as never asked.

    Attributes:
        description: Model and server, without credentials.
        resent: How often a request was sent again because of the network or the server.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 32,
        connect_timeout: float = 10.0,
        read_timeout: float = 600.0,
        max_retries: int = 8,
        extra_body: bool = True,
        backoff_base: float = 0.5,
    ) -> None:
        """Prepares the connections; nothing is sent yet.

        Args:
            base_url: Up to and including `/v1`.
            model: The name under which the server offers the model.
            api_key_env: The environment variable that holds the key; servers on this machine need none.
            concurrency: Requests under way at once.
            connect_timeout: Seconds for a connection.
            read_timeout: Seconds for a whole answer.
            max_retries: How often a request is sent again after trouble with the network or the server.
            extra_body: Whether to send what plain OpenAI servers refuse and vLLM and others know:
                `repetition_penalty`, and `chat_template_kwargs` to switch thinking off.
            backoff_base: Seconds; the nth retry waits a random time up to this times 2**n.

        Raises:
            UserError: When the URL cannot be used or the key is missing.
        """
        url = _parse_url(base_url)
        local = _is_local(url.host)
        key = _read_key(api_key_env, required=not local and not url.userinfo)
        plain_url = url.copy_with(username=None, password=None, query=None, fragment=None)
        self.description = f"openai:{model}@{str(plain_url).rstrip('/')}"
        if not extra_body:
            self.description += " without extra fields"
        self.resent = 0
        self._secrets = [secret for secret in (key, url.password) if len(secret) >= _SHORTEST_SECRET]
        self._model = model
        self._api_key_env = api_key_env
        self._concurrency = concurrency
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._max_retries = max_retries
        self._extra_body = extra_body
        self._backoff_base = backoff_base
        self._host = plain_url.netloc.decode()
        self._told: set[int] = set()
        self._health = _Health(self._host)
        # Of the URL, only the query may go with the requests: credentials would show in httpx's log.
        self._url = url.copy_with(
            username=None, password=None, fragment=None, path=f"{url.path.rstrip('/')}/chat/completions"
        )
        self._new_client = partial(
            httpx.AsyncClient,
            auth=(url.username, url.password) if url.userinfo else None,
            headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=httpx.Timeout(read_timeout, connect=connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_ALIVE_SECONDS),
            verify=httpx.create_ssl_context(),
            trust_env=not local,  # a proxy of the environment does not lead back to this machine
        )
        # A client for each connection: with many in one client httpx polls all of them for every request.
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []
        self._loop = _LoopThread()

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
                end = outcome.end or self._health.note(outcome)
                if end:
                    self._loop.call(stop.set)
                    yield from _last_answers(done, running)
                    raise end
                if outcome.trouble in ("refused", "unreachable", "failed"):
                    held.append(outcome)
                    continue
                if not outcome.trouble:
                    yield from (earlier.reply for earlier in held)
                    held.clear()
                yield outcome.reply
            self._health.check_last(held)
            yield from (outcome.reply for outcome in held)
        finally:
            for future in running:
                future.cancel()

    def summary(self) -> list[tuple[str, object]]:
        """How often trouble with network or server made it send a request again."""
        return [("sent again", self.resent)]

    def close(self) -> None:
        """Cancels what is under way and closes the connections."""
        self._loop.close(self._close_clients)

    async def _close_clients(self) -> None:
        """Closes all connections."""
        for client in self._clients:
            await client.aclose()

    async def _answer(self, request: Request, sampling: Sampling, stop: asyncio.Event) -> "_Outcome":
        """Sends one request until it is answered, the tries are used up or the run has to stop."""
        body = self._body(request, sampling)
        tried = prompt_tokens = completion_tokens = 0
        while True:
            try:
                answer = _read_body(await self._send(body))
                # Answers that are of no use are paid for as well.
                prompt_tokens += _tokens(answer, "prompt_tokens")
                completion_tokens += _tokens(answer, "completion_tokens")
                texts = [self._clean(text) for text in _texts(answer, sampling.n)]
                return _Outcome(Reply(request.key, texts, prompt_tokens, completion_tokens))
            except UserError as error:
                return _Outcome(Reply(request.key, [], error="stopped"), end=error)
            except _AttemptError as error:
                if tried >= min(self._max_retries, error.max_retries) or await self._stopped(stop, error, tried):
                    final = error.trouble in ("request", "refused")
                    reply = Reply(request.key, [], prompt_tokens, completion_tokens, error.reason, final)
                    return _Outcome(reply, error.trouble, error.detail)
                tried += 1
                self.resent += 1

    async def _stopped(self, stop: asyncio.Event, error: "_AttemptError", tried: int) -> bool:
        """Waits before the next try; ends early with True when the run has to stop."""
        limit = min(_LONGEST_BACKOFF, self._backoff_base * 2 ** min(tried, 32))
        try:
            await asyncio.wait_for(stop.wait(), error.wait + random.uniform(0, limit))
        except TimeoutError:
            return False
        return True

    def _body(self, request: Request, sampling: Sampling) -> bytes:
        """The JSON to send."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": request.messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.n > 1:
            body["n"] = sampling.n
        if self._extra_body:
            body["chat_template_kwargs"] = {"enable_thinking": False}
            if sampling.repetition_penalty != 1.0:
                body["repetition_penalty"] = sampling.repetition_penalty
        return _well_formed(json.dumps(body, ensure_ascii=False)).encode()

    async def _send(self, body: bytes) -> httpx.Response:
        """One try.

        Raises:
            _AttemptError: When it brought nothing.
            UserError: When no other can.
        """
        if not self._idle:
            self._clients.append(client := self._new_client())
            self._idle.append(client)
        client = self._idle.pop()
        try:
            # httpx limits each single read; this one also ends an answer that trickles for ever.
            async with asyncio.timeout(self._connect_timeout + self._read_timeout):
                response = await client.post(self._url, content=body)
        except httpx.ConnectTimeout:
            reason = f"no connection within {self._connect_timeout:g} s"
            raise _AttemptError(reason, trouble="unreachable") from None
        except httpx.ConnectError as error:
            raise _AttemptError("cannot connect", trouble="unreachable", detail=self._shown(str(error))) from None
        except (httpx.TimeoutException, TimeoutError):
            raise _AttemptError(f"no answer within {self._read_timeout:g} s") from None
        except httpx.RequestError as error:
            raise _AttemptError("connection cut", detail=self._shown(str(error))) from None
        finally:
            self._idle.append(client)
        if not response.is_success:
            raise self._status_error(response)
        return response

    def _status_error(self, response: httpx.Response) -> Exception:
        """What an error status means for the request, or for the run."""
        status = response.status_code
        message = self._shown(_server_message(response))
        no_credit = status == HTTPStatus.TOO_MANY_REQUESTS and _NO_CREDIT.search(response.text)
        if status in _REFUSED_STATUS:
            one = status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or _ABOUT_ONE_REQUEST.search(response.text)
            self._tell_once(status, message)
            return _AttemptError(
                f"HTTP {status}", trouble="request" if one else "refused", detail=message, max_retries=0
            )
        if (status in _RETRIED_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR) and not no_credit:
            wait = _retry_after(response.headers.get("Retry-After", ""))
            if wait <= _LONGEST_RETRY_AFTER:
                return _AttemptError(f"HTTP {status}", detail=message, wait=wait)
            advice = f"it asks to wait {wait:.0f} s; start again then"
        elif status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            advice = f"check the key in the environment variable {self._api_key_env}, and what it may use"
        elif no_credit or status == HTTPStatus.PAYMENT_REQUIRED:
            advice = "check the balance or quota of the account"
        else:
            advice = f"check the base URL (mostly it ends in /v1) and the model name {self._model}"
        said = f": {message}" if message else ""
        return UserError(f"{self._host} answered HTTP {status}{said} - {advice}; {_RESUMABLE}")

    def _tell_once(self, status: int, message: str) -> None:
        """Says on stderr why the server refuses requests, once for each status."""
        if status not in self._told:
            self._told.add(status)
            print(f"{self._host} refused a request with HTTP {status}: {message}", file=sys.stderr)

    def _clean(self, text: str) -> str:
        """A server's text in valid Unicode and without the key."""
        text = _well_formed(text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _shown(self, text: str) -> str:
        """A server's text on one line, short, printable, without the key."""
        line = " ".join(self._clean(text).split())  # first the key, so that no part of it stays at the cut
        line = "".join(character for character in line if character.isprintable())
        return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}…"


@dataclass(frozen=True, slots=True)
class _Outcome:
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


class _AttemptError(Exception):
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


class _Health:
    """Decides when a run has to stop because the server does not answer."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._answered = False
        self._refused = 0
        self._failed: deque[bool] = deque(maxlen=_WINDOW)

    def note(self, outcome: _Outcome) -> UserError | None:
        """Counts an outcome; returns the error to stop with."""
        if outcome.trouble == "request":
            return None
        self._failed.append(outcome.trouble is not None)
        self._answered |= outcome.trouble is None
        self._refused += outcome.trouble == "refused"
        if not self._answered and self._refused >= _REFUSED_FIRST:
            return UserError(
                f"{self._host} refused the first requests with {_reason(outcome)} - if it names repetition_penalty or "
                "chat_template_kwargs, which plain OpenAI servers do not know, leave them out (--no-extra_body)"
            )
        failed = sum(self._failed)
        if len(self._failed) >= _WINDOW_LEAST and failed > _WINDOW_FAILED * len(self._failed):
            return UserError(
                f"{self._host}: {failed} of the last {len(self._failed)} requests failed after all retries, the last "
                f"with {_reason(outcome)} - check the server; {_RESUMABLE}"
            )
        return None

    def check_last(self, held: list[_Outcome]) -> None:
        """Looks at the failures that no answer followed.

        Raises:
            UserError: When nobody listens; other failures may be the fault of the requests.
        """
        for outcome in held:
            if outcome.trouble == "unreachable":
                raise UserError(
                    f"{self._host}: {_reason(outcome)} - check that the server runs and the base URL; {_RESUMABLE}"
                )


class _LoopThread:
    """An event loop in a thread of its own, so that transfers go on while the caller works."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a run that ends without close() ends all the same.
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, _Outcome]) -> "Future[_Outcome]":
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
        if outcome.trouble is None and outcome.end is None:
            yield outcome.reply


def _reason(outcome: _Outcome) -> str:
    """Why a request failed, with what the other side said."""
    return f"{outcome.reply.error}: {outcome.detail}" if outcome.detail else outcome.reply.error


def _parse_url(base_url: str) -> httpx.URL:
    """The base URL, checked; it is not shown where it is wrong, because it may hold a password."""
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError("the base URL of the openai engine must look like http://localhost:8000/v1")
    return url


def _is_local(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _read_key(variable: str, *, required: bool) -> str:
    """The key, `""` where there is none and none is needed.

    Raises:
        UserError: Naming the variable, never the value.
    """
    key = os.environ.get(variable, "").strip()
    if not key and required:
        raise UserError(
            f"the openai engine reads its key from the environment: set {variable} (to any word for a server that "
            "checks no key)"
        )
    if not all("!" <= character <= "~" for character in key):
        raise UserError(
            f"the key in the environment variable {variable} holds spaces or other odd characters: set it again"
        )
    return key


def _well_formed(text: str) -> str:
    """Surrogate pairs become the character they stand for, lone ones U+FFFD: UTF-8 has neither."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _read_body(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that a server sent."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _AttemptError("unreadable body")
    return body


def _texts(body: dict[str, Any], n: int) -> list[str]:
    """The n answers of a body."""
    choices = body.get("choices")
    if not choices:
        raise _AttemptError("empty choice list", max_retries=_EMPTY_ANSWER_RETRIES)
    try:
        texts = [choice["message"]["content"] for choice in choices[:n]]
    except (KeyError, TypeError):
        raise _AttemptError("unreadable body") from None
    if None in texts:
        raise _AttemptError("empty answer", max_retries=_EMPTY_ANSWER_RETRIES)
    if not all(isinstance(text, str) for text in texts):
        raise _AttemptError("unreadable body")
    if len(texts) < n:
        raise _AttemptError(f"{len(texts)} of {n} answers", detail="the server ignores `n`", max_retries=0)
    return texts


def _tokens(body: dict[str, Any], name: str) -> int:
    """A count of the body's usage, 0 where the server gives none."""
    usage = body.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0


def _server_message(response: httpx.Response) -> str:
    """What a server says about an error: the message of the usual JSON forms, else the text."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "detail") if body.get(name)), "")
    return body if isinstance(body, str) else json.dumps(body)


def _retry_after(value: str) -> float:
    """Seconds of a `Retry-After` header, which holds seconds or a date; 0 where it holds neither."""
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
