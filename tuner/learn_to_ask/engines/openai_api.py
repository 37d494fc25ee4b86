"""The `openai` engine: any server with an OpenAI-compatible chat endpoint, many requests at a time."""

import asyncio
import json
import random
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any

import httpx

from tuner.learn_to_ask.engines.base import Reply, Request, Sampling
from tuner.learn_to_ask.engines.openai_http import (
    is_local,
    parse_url,
    read_body,
    read_key,
    read_texts,
    read_tokens,
    retry_after_seconds,
    server_message,
    well_formed,
)
from tuner.learn_to_ask.engines.openai_run import (
    RESUMABLE,
    AttemptError,
    Health,
    LoopThread,
    Outcome,
    last_answers,
)
from tuner.learn_to_ask.errors import UserError

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
_KEEP_ALIVE_SECONDS = 4.0  # below the 5 s after which uvicorn (vLLM) hangs up
_SHORTEST_SECRET = 6  # placeholders such as EMPTY are no secrets, and are words
_MESSAGE_LENGTH = 300


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
        url = parse_url(base_url)
        local = is_local(url.host)
        key = read_key(api_key_env, required=not local and not url.userinfo)
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
        self._health = Health(self._host)
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
        self._loop = LoopThread()

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies as they finish; pulls requests in the caller's thread, one for each free place.

        Raises:
            UserError: When going on is pointless; what was under way and still succeeds is yielded before.
        """
        stream = iter(requests)
        stop = asyncio.Event()
        done: SimpleQueue[Future[Outcome]] = SimpleQueue()
        running: set[Future[Outcome]] = set()
        held: list[Outcome] = []
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
                    yield from last_answers(done, running)
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

    async def _answer(self, request: Request, sampling: Sampling, stop: asyncio.Event) -> "Outcome":
        """Sends one request until it is answered, the tries are used up or the run has to stop."""
        body = self._body(request, sampling)
        tried = prompt_tokens = completion_tokens = 0
        while True:
            try:
                answer = read_body(await self._send(body))
                # Answers that are of no use are paid for as well.
                prompt_tokens += read_tokens(answer, "prompt_tokens")
                completion_tokens += read_tokens(answer, "completion_tokens")
                texts = [self._clean(text) for text in read_texts(answer, sampling.n)]
                return Outcome(Reply(request.key, texts, prompt_tokens, completion_tokens))
            except UserError as error:
                return Outcome(Reply(request.key, [], error="stopped"), end=error)
            except AttemptError as error:
                if tried >= min(self._max_retries, error.max_retries) or await self._stopped(stop, error, tried):
                    final = error.trouble in ("request", "refused")
                    reply = Reply(request.key, [], prompt_tokens, completion_tokens, error.reason, final)
                    return Outcome(reply, error.trouble, error.detail)
                tried += 1
                self.resent += 1

    async def _stopped(self, stop: asyncio.Event, error: "AttemptError", tried: int) -> bool:
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
        return well_formed(json.dumps(body, ensure_ascii=False)).encode()

    async def _send(self, body: bytes) -> httpx.Response:
        """One try.

        Raises:
            AttemptError: When it brought nothing.
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
            raise AttemptError(reason, trouble="unreachable") from None
        except httpx.ConnectError as error:
            raise AttemptError("cannot connect", trouble="unreachable", detail=self._shown(str(error))) from None
        except (httpx.TimeoutException, TimeoutError):
            raise AttemptError(f"no answer within {self._read_timeout:g} s") from None
        except httpx.RequestError as error:
            raise AttemptError("connection cut", detail=self._shown(str(error))) from None
        finally:
            self._idle.append(client)
        if not response.is_success:
            raise self._status_error(response)
        return response

    def _status_error(self, response: httpx.Response) -> Exception:
        """What an error status means for the request, or for the run."""
        status = response.status_code
        message = self._shown(server_message(response))
        no_credit = status == HTTPStatus.TOO_MANY_REQUESTS and _NO_CREDIT.search(response.text)
        if status in _REFUSED_STATUS:
            one = status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or _ABOUT_ONE_REQUEST.search(response.text)
            self._tell_once(status, message)
            return AttemptError(
                f"HTTP {status}", trouble="request" if one else "refused", detail=message, max_retries=0
            )
        if (status in _RETRIED_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR) and not no_credit:
            wait = retry_after_seconds(response.headers.get("Retry-After", ""))
            if wait <= _LONGEST_RETRY_AFTER:
                return AttemptError(f"HTTP {status}", detail=message, wait=wait)
            advice = f"it asks to wait {wait:.0f} s; start again then"
        elif status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            advice = f"check the key in the environment variable {self._api_key_env}, and what it may use"
        elif no_credit or status == HTTPStatus.PAYMENT_REQUIRED:
            advice = "check the balance or quota of the account"
        else:
            advice = f"check the base URL (mostly it ends in /v1) and the model name {self._model}"
        said = f": {message}" if message else ""
        return UserError(f"{self._host} answered HTTP {status}{said} - {advice}; {RESUMABLE}")

    def _tell_once(self, status: int, message: str) -> None:
        """Says on stderr why the server refuses requests, once for each status."""
        if status not in self._told:
            self._told.add(status)
            print(f"{self._host} refused a request with HTTP {status}: {message}", file=sys.stderr)

    def _clean(self, text: str) -> str:
        """A server's text in valid Unicode and without the key."""
        text = well_formed(text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _shown(self, text: str) -> str:
        """A server's text on one line, short, printable, without the key."""
        line = " ".join(self._clean(text).split())  # first the key, so that no part of it stays at the cut
        line = "".join(character for character in line if character.isprintable())
        return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}…"
