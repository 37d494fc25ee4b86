"""The one client of OpenAI-compatible endpoints: script 1, script 3, the preflight and the judge in training use it."""

import asyncio
import math
import random
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tuner.learn_to_ask.core.responses import well_formed
from tuner.learn_to_ask.engines.base import Applied, Sampling
from tuner.learn_to_ask.engines.openai_address import Address, Endpoint, find_addresses
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
from tuner.learn_to_ask.engines.openai_servers import Server, Servers
from tuner.learn_to_ask.errors import UserError

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
_PROBE = [{"role": "user", "content": "Reply with the word ready."}]


class ChatClient:
    """Asks one server, or several of one model, as often as it takes; used on one event loop.

    What one server refuses by name is left out for all, so that all answers are sampled alike.

    Attributes:
        endpoint: Who is asked.
        servers: Where that is.
        description: Model and first server, without credentials.
        answered: Whether a server has ever answered a request.
        resent: How often a request was sent again because of the network or a server.
        fitted: What was changed to please a server, in words, as keys.
    """

    def __init__(self, endpoint: Endpoint, *, places: int | None = None) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: Who is asked.
            places: How many requests a server gets at once, `None` for as many as come.

        Raises:
            UserError: When a URL, the key or a proxy cannot be used.
        """
        self.endpoint = endpoint
        addresses = find_addresses(endpoint)
        self.servers = Servers(addresses, places=places, first_rest=endpoint.backoff_base)
        self.description = f"openai:{endpoint.model}@{addresses[0].base_url}"
        if not endpoint.extra_body:
            self.description += " without extra fields"
        if endpoint.extra_json:
            self.description += f" with {endpoint.extra_json}"
        self.answered = False
        self.resent = 0
        self.fitted: dict[str, None] = {}
        self._told: set[str] = set()
        self._secrets = [secret for address in addresses for secret in address.secrets]
        self._form = RequestForm(endpoint)
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self,
        messages: list[dict[str, str]],
        sampling: Sampling,
        *,
        stop: asyncio.Event | None = None,
        patient: bool = True,
        asked: Iterable[Server] = (),
    ) -> Answers:
        """Asks until there are `sampling.n` answers, or one of them fails for good; each server once before any twice.

        Args:
            messages: The conversation.
            sampling: How to sample.
            stop: Ends the waiting between two tries.
            patient: Whether to ask a server again that failed.
            asked: Servers to pass over.
        """
        now = asyncio.get_running_loop().time
        answers, passed, tried, started = Answers(), set(asked), 0, now()
        error: AttemptError | None = None
        while len(answers.texts) < sampling.n and not answers.error:
            server = await self.servers.take(passed)
            host = server.address.host
            try:
                if stop is not None and stop.is_set():
                    answers.failure = error or AttemptError("not asked")
                    break
                self.resent += error is not None
                error = await self._try(server.address, messages, sampling, answers)
            finally:
                self.servers.give_back(server)
            if change := self.servers.note(server, error):
                self._tell(f"{host}: {change}" if error is None else f"{host}: {error.said}; {change}")
            if error is None:
                self.answered = True
                passed, tried, started = set(asked), 0, now()
                continue
            passed.add(server)
            if error.trouble not in ("answer", "request") and self.servers.others(passed):
                continue
            unreachable = error.trouble == "unreachable"
            left = started + _UNREACHABLE_SECONDS - now() if unreachable and not self.answered else math.inf
            if left <= 0 or not patient or tried >= min(self.endpoint.max_retries, error.max_retries):
                answers.failure = error
                break
            if unreachable:
                self._tell(f"{host}: {error.said}; trying again")
            await self._wait(stop, error, tried, longest=left)
            tried += 1
        answers.texts = [self._clean(text) for text in answers.texts]
        return answers

    async def check(self, sampling: Sampling) -> None:
        """Asks each of several servers for its models, or something harmless; one that cannot be reached is left out.

        Args:
            sampling: How to sample.

        Raises:
            UserError: Naming a server that refuses to answer, or that offers another model than the others.
        """
        servers, name = self.servers.all, self.endpoint.model
        if len(servers) == 1:
            return
        lists = await asyncio.gather(*(self._models(server.address) for server in servers))
        unsure = [server for server, models in zip(servers, lists, strict=True) if name not in models]
        probes = (self.probe(sampling, asked=[other for other in servers if other is not server]) for server in unsure)
        for error in await asyncio.gather(*probes):
            if error and error.trouble == "refused":
                raise UserError(f"{error.address.host} answered {error.said} - {self.advice(error)}")
        offers = {server.address.base_url: models for server, models in zip(servers, lists, strict=True) if models}
        if listed := [models for models in offers.values() if name in models]:
            served = {models[name] for models in listed} - {name}  # a server that only repeats the name says nothing
            same = len(listed) == len(offers) and len(served) <= 1
        else:  # servers that take any name
            same = len({frozenset(models) for models in offers.values()}) <= 1
        if not same:
            shown = {url: models.get(name) or ", ".join(sorted(models)[:3]) for url, models in offers.items()}
            said = self._shown("; ".join(f"{url} offers {what}" for url, what in shown.items()))
            raise UserError(f"the servers must all offer the same model: {said}")

    async def probe(self, sampling: Sampling, *, asked: Iterable[Server] = ()) -> AttemptError | None:
        """Asks something harmless; why that is not answered."""
        return (await self.ask(_PROBE, replace(sampling, n=1), patient=False, asked=asked)).failure

    def applied(self, sampling: Sampling) -> Applied:
        """What is sent of a sampling, by what this server has refused so far; `None` for what is left out."""
        return self._form.applied(sampling)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    def advice(self, error: AttemptError) -> str:
        """What to do about an error that every request would meet."""
        base_url, variable = error.address.base_url, self.endpoint.api_key_env
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

    async def _try(
        self, address: Address, messages: list[dict[str, str]], sampling: Sampling, answers: Answers
    ) -> AttemptError | None:
        """Asks a server for what is missing, anew when it refuses by name what can be left out; what failed."""
        while True:
            missing = sampling.n - len(answers.texts)
            n = 1 if self._form.separate else missing
            body = self._form.body(messages, sampling, n=n)
            try:
                answers.add(await self._send(address, body), n)
            except AttemptError as error:
                error.address = address
                if error.trouble not in ("refused", "request"):
                    return error
                done = self._form.learn(error.detail, body)
                if not done:
                    self._tell(f"{address.host} refused a request: {error.said}", about=error.reason)
                    return error
                self.fitted[done] = None
                self._tell(
                    f"{address.host}: the server refused a request ({error.said}): {done} for this run", about=done
                )
            else:
                if sampling.n - len(answers.texts) > missing - n and not answers.error:
                    self._form.separate = True
                    self._tell(f"{address.host}: the server ignores `n`; each answer gets a request of its own")
                return None

    async def _wait(self, stop: asyncio.Event | None, error: AttemptError, tried: int, *, longest: float) -> None:
        """Waits before the next try, not longer than until the run has to stop."""
        limit = min(_LONGEST_BACKOFF, self.endpoint.backoff_base * 2 ** min(tried, 32))
        seconds = min(longest, error.wait + random.uniform(0, limit))
        with suppress(TimeoutError):
            await asyncio.wait_for((stop or asyncio.Event()).wait(), seconds)

    async def _models(self, address: Address) -> dict[str, str]:
        """The names of the models that a server offers, with what it serves under them; empty when it does not say."""
        with suppress(AttemptError):
            data = (await self._send(address, None)).get("data")
            models = [model for model in data if isinstance(model, dict)] if isinstance(data, list) else []
            return {str(model.get("id")): str(model.get("root") or model.get("id")) for model in models}
        return {}

    async def _send(self, address: Address, body: dict[str, Any] | None) -> dict[str, Any]:
        """One try of a question, or of asking for the models.

        Raises:
            AttemptError: When it brought nothing.
        """
        import aiohttp

        endpoint = self.endpoint
        self._session = self._session or _open_session(endpoint)
        method, url = ("POST", address.completions) if body else ("GET", address.models)
        try:
            async with self._session.request(
                method, url, json=body, headers=address.headers, proxy=address.proxy, allow_redirects=False
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

    def _tell(self, line: str, *, about: str = "") -> None:
        """Says something on stderr once, or once for what it is about."""
        about = about or line
        if about not in self._told:
            self._told.add(about)
            print(line, file=sys.stderr)

    def _clean(self, text: str) -> str:
        """A server's text in valid Unicode and without the key."""
        text = well_formed(text)
        for secret in self._secrets:
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


def pass_over_unclosed(loop: asyncio.AbstractEventLoop) -> None:
    """Has a loop say nothing of connections that are open when it is left, as by Ctrl-C; all else as before."""
    before = loop.get_exception_handler() or type(loop).default_exception_handler

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not str(context.get("message")).startswith("Unclosed"):
            before(loop, context)

    loop.set_exception_handler(report)
