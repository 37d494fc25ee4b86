"""The one client of OpenAI-compatible endpoints: script 1, script 3, the preflight and the judge in training use it."""

import asyncio
import random
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.learn_to_ask.core.responses import well_formed
from tuner.learn_to_ask.engines.base import Applied, Sampling
from tuner.learn_to_ask.engines.openai_address import Endpoint, find_address
from tuner.learn_to_ask.engines.openai_reply import (
    NO_CREDIT,
    Answers,
    AttemptError,
    error_status,
    error_words,
    network_error,
    read_body,
    retry_after_seconds,
)
from tuner.learn_to_ask.engines.openai_request import RequestForm

if TYPE_CHECKING:
    import aiohttp

_TOO_LONG = (
    r"context[ _]?(length|window|size)|maximum (model|context|input|prompt|number of tokens)|too (long|large)"
    r"|too many tokens|longer than|range of input length|reduce the length|超长|when context the overflows"
)
_MODERATED = (
    r"content[ _](policy|filter|management|exists risk)|moderation|inappropriate|high risk|sensitive|unsafe"
    r"|risk control|content of user field is invalid|blocked by|safety|敏感|不安全|违规"
)
_ABOUT_ONE_REQUEST = re.compile(f"(?P<long>{_TOO_LONG})|{_MODERATED}", re.IGNORECASE)
_RETRIED_STATUS = frozenset({408, 409, 425, 429})  # and everything from 500
_LONGEST_RETRY_AFTER = 600.0  # a server that wants more than this is better asked again in a later run
_LONGEST_BACKOFF = 60.0
_UNREACHABLE_SECONDS = 40.0  # a server that never answered is given up after this long
_KEEP_ALIVE_SECONDS = 4.0  # below the 5 s after which uvicorn (vLLM) hangs up
_MESSAGE_LENGTH = 300


class ChatClient:
    """Asks one endpoint, as often as it takes; used on one event loop.

    Attributes:
        endpoint: Who is asked.
        address: Where that is.
        description: Model and server, without credentials.
        answered: Whether the server has ever answered a request.
        resent: How often a request was sent again because of the network or the server.
        fitted: What was changed for this server, in words, as keys.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Nothing is sent yet.

        Raises:
            UserError: When the URL, the key or a proxy cannot be used.
        """
        self.endpoint = endpoint
        self.address = find_address(endpoint)
        self.description = f"openai:{endpoint.model}@{self.address.base_url}"
        if not endpoint.extra_body:
            self.description += " without extra fields"
        if endpoint.extra_json:
            self.description += f" with {endpoint.extra_json}"
        self.answered = False
        self.resent = 0
        self.fitted: dict[str, None] = {}
        self._told: set[str] = set()
        self._form = RequestForm(endpoint)
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self,
        messages: list[dict[str, str]],
        sampling: Sampling,
        *,
        stop: asyncio.Event | None = None,
        patient: bool = True,
    ) -> Answers:
        """Asks until there are `sampling.n` answers, or one of them fails for good.

        Args:
            messages: The conversation.
            sampling: How to sample.
            stop: Ends the waiting between two tries.
            patient: Whether to send a request again that failed.
        """
        loop = asyncio.get_running_loop()
        answers, tried, started = Answers(), 0, loop.time()
        while (missing := sampling.n - len(answers.texts)) and not answers.error:
            n = 1 if self._form.separate else missing
            body = self._form.body(messages, sampling, n=n)
            try:
                answers.add(await self._send(body), n)
            except AttemptError as error:
                if error.trouble in ("refused", "request"):
                    if done := self._form.learn(error.detail, body):
                        line = f"{self.address.host}: the server refused a request ({error.said}): {done} for this run"
                        self._tell(line, once_for=done)
                        self.fitted[done] = None
                        continue
                    self._tell(f"{self.address.host} refused a request: {error.said}", once_for=error.reason)
                unreachable = error.trouble == "unreachable"
                hopeless = unreachable and not self.answered and loop.time() - started > _UNREACHABLE_SECONDS
                last = hopeless or not patient or tried >= min(self.endpoint.max_retries, error.max_retries)
                if not last and unreachable:
                    self._tell(f"{self.address.host}: {error.said}; trying again")
                if last or await self._stopped(stop, error, tried):
                    answers.failure = error
                    break
                tried += 1
                self.resent += 1
            else:
                self.answered = True
                tried, started = 0, loop.time()
                if sampling.n - len(answers.texts) > missing - n and not answers.error:
                    self._form.separate = True
                    self._tell(f"{self.address.host}: the server ignores `n`; each answer gets a request of its own")
        answers.texts = [self._clean(text) for text in answers.texts]
        return answers

    def applied(self, sampling: Sampling) -> Applied:
        """What is sent of a sampling, by what this server has refused so far; `None` for what is left out."""
        return self._form.applied(sampling)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    def advice(self, error: AttemptError) -> str:
        """What to do about an error that every request would meet."""
        base_url, variable = self.address.base_url, self.endpoint.api_key_env
        if error.trouble == "unreachable":
            return "check that the server runs, the base URL and the network"
        if NO_CREDIT.search(error.detail) or error.status == 402:
            return "check the balance or quota of the account"
        if error.status in (401, 403):
            return f"check the key in the environment variable {variable}, and what it may use"
        if error.status in (400, 413, 422):
            return (
                "if it names a field, leave it out with --extra_json '{\"FIELD\": null}'; repetition_penalty and "
                "chat_template_kwargs, which plain OpenAI servers do not know, with --no-extra_body"
            )
        if error.status == 404 or 300 <= error.status < 400:
            likely = "/v1" if base_url.rpartition("/")[2].startswith("v") else f"/v1: {base_url}/v1"
            return f"check the base URL (mostly it ends in {likely}) and the model name {self.endpoint.model}"
        return "check the server"

    async def _stopped(self, stop: asyncio.Event | None, error: AttemptError, tried: int) -> bool:
        """Waits before the next try; ends early with True when the run has to stop."""
        limit = min(_LONGEST_BACKOFF, self.endpoint.backoff_base * 2 ** min(tried, 32))
        try:
            await asyncio.wait_for((stop or asyncio.Event()).wait(), error.wait + random.uniform(0, limit))
        except TimeoutError:
            return False
        return True

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        """One try.

        Raises:
            AttemptError: When it brought no completion.
        """
        import aiohttp

        endpoint, address = self.endpoint, self.address
        self._session = self._session or _open_session(endpoint)
        try:
            async with self._session.post(
                address.completions, json=body, headers=address.headers, proxy=address.proxy, allow_redirects=False
            ) as response:
                text = (await response.read()).decode("utf-8", "replace").strip()
        except (aiohttp.ClientError, OSError) as error:
            failed = network_error(error, connect_timeout=endpoint.connect_timeout, read_timeout=endpoint.read_timeout)
            failed.detail = self._shown(failed.detail)
            raise failed from None
        if response.status >= 300:
            raise self._refusal(response.status, text, response.headers)
        answer = read_body(text)
        if status := error_status(answer):
            raise self._refusal(status, text, response.headers)
        return answer

    def _refusal(self, status: int, text: str, headers: Mapping[str, str]) -> AttemptError:
        """What an error of the server means for the request, with its own words."""
        reason, message = f"HTTP {status}", self._shown(error_words(text, status))
        passing = status in _RETRIED_STATUS or status >= 500
        if passing and not NO_CREDIT.search(message):
            wait = retry_after_seconds(headers)
            if wait <= _LONGEST_RETRY_AFTER:
                return AttemptError(reason, "failed", message, status, wait)
            message += f"; it asks to wait {wait:.0f} s"
        elif not passing and (words := _ABOUT_ONE_REQUEST.search(message)):
            sort = "prompt too long" if words["long"] else "moderated"
            return AttemptError(f"{sort} ({reason})", "request", message, status, max_retries=0)
        return AttemptError(reason, "refused", message, status, max_retries=0)

    def _tell(self, line: str, *, once_for: str = "") -> None:
        """Says something on stderr once, or once for what it is about."""
        about = once_for or line
        if about not in self._told:
            self._told.add(about)
            print(line, file=sys.stderr)

    def _clean(self, text: str) -> str:
        """A server's text in valid Unicode and without the key."""
        text = well_formed(text)
        for secret in self.address.secrets:
            text = text.replace(secret, "***")
        return text

    def _shown(self, text: str) -> str:
        """A server's text on one line, short, printable, without the key."""
        line = " ".join(self._clean(text).split())  # first the key, so that no part of it stays at the cut
        line = "".join(filter(str.isprintable, line))
        return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}…"


def _open_session(endpoint: Endpoint) -> "aiohttp.ClientSession":
    """Connections that are kept, with as many at a time as there are requests."""
    import aiohttp
    import httpx

    # httpx knows certificates of its own where the system has none.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ssl=httpx.create_ssl_context())
    connect, read = endpoint.connect_timeout, endpoint.read_timeout
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "learn2ask"},
        # The limit of single reads alone would let an answer trickle for ever.
        timeout=aiohttp.ClientTimeout(total=connect + read, sock_connect=connect, sock_read=read),
    )
