"""The one client of OpenAI-compatible endpoints: script 1, script 3, the preflight and the judge in training use it."""

import asyncio
import json
import random
import re
import sys
from typing import TYPE_CHECKING, Any

from tuner.learn_to_ask.core.responses import well_formed
from tuner.learn_to_ask.engines.base import Applied, Sampling
from tuner.learn_to_ask.engines.openai_address import (
    Endpoint,
    check_proxy,
    is_azure,
    is_local,
    make_http_client,
    parse_url,
    read_key,
)
from tuner.learn_to_ask.engines.openai_reply import (
    NO_CREDIT,
    Answers,
    AttemptError,
    body_error,
    error_message,
    network_error,
    read_answers,
    read_body,
    retry_after_seconds,
)
from tuner.learn_to_ask.engines.openai_request import RequestForm, parse_extra_json

if TYPE_CHECKING:
    import httpx

_TOO_LONG = (
    r"context[ _]?(length|window|size)|maximum (model|context|input|prompt|number of tokens)|too (long|large)"
    r"|too many tokens|longer than|range of input length|reduce the length|超长|when context the overflows"
)
_MODERATED = (
    r"content[ _](policy|filter|management|exists risk)|moderation|inappropriate|high risk|sensitive|unsafe"
    r"|risk control|content of user field is invalid|blocked by|safety|敏感|不安全|违规"
)
_ABOUT_ONE_REQUEST = re.compile(f"{_TOO_LONG}|{_MODERATED}", re.IGNORECASE)
_RETRIED_STATUS = frozenset({408, 409, 425, 429})  # and everything from 500
_LONGEST_RETRY_AFTER = 600.0  # a server that wants more than this is better asked again in a later run
_LONGEST_BACKOFF = 60.0
_UNREACHABLE_SECONDS = 40.0  # a server that never answered is given up after this long
_KEEP_ALIVE_SECONDS = 4.0  # below the 5 s after which uvicorn (vLLM) hangs up
_SHORTEST_SECRET = 6  # placeholders such as EMPTY are no secrets, and are words
_MESSAGE_LENGTH = 300


class ChatClient:
    """Asks one endpoint through the openai SDK, as often as it takes.

    Attributes:
        description: Model and server, without credentials.
        host: For messages.
        answered: Whether the server has ever answered a request.
        resent: How often a request was sent again because of the network or the server.
        fitted: What was changed for this server, in words.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepares the connections; nothing is sent yet.

        Raises:
            UserError: When the URL, the key or a proxy cannot be used.
        """
        import httpx
        import openai

        url = parse_url(endpoint.base_url)
        local = is_local(url.host)
        key = read_key(endpoint.api_key_env, required=not local and not url.userinfo)
        plain_url = url.copy_with(username=None, password=None, query=None, fragment=None)
        self.endpoint = endpoint
        self.base_url = str(plain_url).rstrip("/")
        self.description = f"openai:{endpoint.model}@{self.base_url}"
        if not endpoint.extra_body:
            self.description += " without extra fields"
        if endpoint.extra_json:
            self.description += f" with {endpoint.extra_json}"
        self.host = plain_url.netloc.decode()
        self.answered = False
        self.resent = 0
        self.fitted: list[str] = []
        self._secrets = [secret for secret in (key, url.password) if len(secret) >= _SHORTEST_SECRET]
        self._told: set[str] = set()
        self._form = RequestForm(
            model=endpoint.model,
            extra_body=endpoint.extra_body,
            extra=parse_extra_json(endpoint.extra_json),
            stream=endpoint.stream,
        )
        if not local:
            check_proxy(url)
        header = endpoint.api_key_header or ("api-key" if is_azure(url) else "")
        # An empty key would be looked for elsewhere by the SDK: it gets a word, and the header is left out.
        self._options: Any = {"headers": {"Authorization": openai.Omit()} if header or not key else {}}
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=key or "none",
            max_retries=0,
            timeout=httpx.Timeout(endpoint.read_timeout, connect=endpoint.connect_timeout, pool=None),
            default_headers={header: key} if header and key else {},
            http_client=make_http_client(
                auth=(url.username, url.password) if url.userinfo else None,
                limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS),
                verify=httpx.create_ssl_context(),
                trust_env=not local,  # a proxy of the environment does not lead back to this machine
            ),
        )
        # What kind of machine asks is nobody's business, and ten headers more are a tenth of a request's time.
        self._client.platform_headers = dict  # type: ignore[method-assign]
        self._completions = str(
            url.copy_with(username=None, password=None, path=f"{url.path.rstrip('/')}/chat/completions")
        )

    async def ask(
        self,
        messages: list[dict[str, str]],
        sampling: Sampling,
        *,
        stop: asyncio.Event | None = None,
        patient: bool = True,
    ) -> Answers:
        """Asks until there are `sampling.n` answers, or one of them fails.

        Args:
            messages: The conversation.
            sampling: How to sample.
            stop: Ends the waiting between two tries.
            patient: Whether to send a request again that failed.

        Raises:
            AttemptError: When there are none after all tries.
        """
        all_of_them = Answers()
        while True:
            missing = sampling.n - len(all_of_them.texts)
            n = 1 if self._form.separate else missing
            try:
                answers = await self._ask_once(messages, sampling, n=n, stop=stop, patient=patient)
            except AttemptError as error:
                error.prompt_tokens += all_of_them.prompt_tokens
                error.completion_tokens += all_of_them.completion_tokens
                raise
            all_of_them.texts += answers.texts
            all_of_them.cut_off += answers.cut_off
            all_of_them.prompt_tokens += answers.prompt_tokens
            all_of_them.completion_tokens += answers.completion_tokens
            all_of_them.error = answers.error
            if len(all_of_them.texts) == sampling.n or answers.error:
                return all_of_them
            if len(answers.texts) < n and not self._form.separate:
                self._form.separate = True
                self._tell(f"{self.host}: the server ignores `n`; each answer gets a request of its own")

    def applied(self, sampling: Sampling) -> Applied:
        """What is sent of a sampling, by what this server has refused so far; `None` for what is left out."""
        return self._form.applied(sampling)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def advice(self, error: AttemptError) -> str:
        """What to do about an error that every request would meet."""
        endpoint = self.endpoint
        if error.trouble == "unreachable":
            return "check that the server runs, the base URL and the network"
        if NO_CREDIT.search(error.detail) or error.status == 402:
            return "check the balance or quota of the account"
        if error.status in (401, 403):
            return f"check the key in the environment variable {endpoint.api_key_env}, and what it may use"
        if error.status in (400, 413, 422):
            return (
                "if it names a field, leave it out with --extra_json '{\"FIELD\": null}'; repetition_penalty and "
                "chat_template_kwargs, which plain OpenAI servers do not know, with --no-extra_body"
            )
        if error.status == 404 or 300 <= error.status < 400:
            versioned = self.base_url.rpartition("/")[2].startswith("v")
            likely = "mostly it ends in /v1" if versioned else f"mostly it ends in /v1: {self.base_url}/v1"
            return f"check the base URL ({likely}) and the model name {endpoint.model}"
        return "check the server"

    async def _ask_once(
        self, messages: list[dict[str, str]], sampling: Sampling, *, n: int, stop: asyncio.Event | None, patient: bool
    ) -> Answers:
        """One request, sent again while that can help."""
        tried = prompt_tokens = completion_tokens = 0
        started = asyncio.get_running_loop().time()
        while True:
            version, body = self._form.version, self._form.body(messages, sampling, n=n)
            try:
                answers = await self._send(body, n)
            except AttemptError as error:
                if error.trouble in ("refused", "request"):
                    if self._fitted(error, body, version):
                        continue
                    self._tell(f"{self.host} refused a request: {error.said}", once_for=error.reason)
                prompt_tokens += error.prompt_tokens
                completion_tokens += error.completion_tokens
                error.prompt_tokens, error.completion_tokens = prompt_tokens, completion_tokens
                waited = asyncio.get_running_loop().time() - started
                hopeless = error.trouble == "unreachable" and not self.answered and waited > _UNREACHABLE_SECONDS
                last = hopeless or not patient or tried >= min(self.endpoint.max_retries, error.max_retries)
                if not last and error.trouble == "unreachable":
                    self._tell(f"{self.host}: {error.said}; trying again")
                if last or await self._stopped(stop, error, tried):
                    raise
                tried += 1
                self.resent += 1
            else:
                self.answered = True
                answers.prompt_tokens += prompt_tokens
                answers.completion_tokens += completion_tokens
                return answers

    def _fitted(self, error: AttemptError, body: dict[str, Any], version: int) -> bool:
        """Whether the next try looks different, because of this refusal or of one that came in the meantime."""
        if self._form.version != version:
            return True
        done = self._form.learn(error.detail, body)
        if done:
            self.fitted.append(done)
            self._tell(f"{self.host}: the server refused a request ({error.said}): {done} for this run")
        return bool(done)

    async def _stopped(self, stop: asyncio.Event | None, error: AttemptError, tried: int) -> bool:
        """Waits before the next try; ends early with True when the run has to stop."""
        limit = min(_LONGEST_BACKOFF, self.endpoint.backoff_base * 2 ** min(tried, 32))
        wait = error.wait + random.uniform(0, limit)
        if stop is None:
            await asyncio.sleep(wait)
            return False
        try:
            await asyncio.wait_for(stop.wait(), wait)
        except TimeoutError:
            return False
        return True

    async def _send(self, body: dict[str, Any], n: int) -> Answers:
        """One try.

        Raises:
            AttemptError: When it brought nothing.
        """
        import httpx
        import openai

        endpoint = self.endpoint
        try:
            # The limits of the SDK are for single reads; this one also ends an answer that trickles for ever.
            async with asyncio.timeout(endpoint.connect_timeout + endpoint.read_timeout):
                response = await self._client.post(
                    self._completions, body=body, cast_to=httpx.Response, options=self._options
                )
        except openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.response) from None
        except (openai.OpenAIError, TimeoutError) as error:
            failed = network_error(error, connect_timeout=endpoint.connect_timeout, read_timeout=endpoint.read_timeout)
            failed.detail = self._shown(failed.detail)
            raise failed from None
        answer = read_body(response.content)
        if failure := body_error(answer):
            raise self._refusal(failure[0], response)
        answers = read_answers(answer, n)
        answers.texts = [self._clean(text) for text in answers.texts]
        return answers

    def _refusal(self, status: int, response: "httpx.Response") -> AttemptError:
        """What an error of the server means, with its own words."""
        try:
            body: object = json.loads(response.content)
        except (ValueError, RecursionError):
            body = response.text
        inner = body.get("error") if isinstance(body, dict) else None
        inner = inner if isinstance(inner, dict) else {}
        words = [error_message(body)]
        named = {str(inner.get(name) or status) for name in ("code", "param")} - {str(status)}
        words += [f"({word})" for word in sorted(named) if word not in words[0]]
        return _status_error(status, self._shown(" ".join(words)), response.headers)

    def _tell(self, line: str, *, once_for: str = "") -> None:
        """Says something on stderr once, or once for what it is about."""
        about = once_for or line
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
        line = "".join(character for character in line if character.isprintable())
        return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}…"


def _status_error(status: int, message: str, headers: "httpx.Headers") -> AttemptError:
    """What an error of the server means for the request."""
    reason = f"HTTP {status}"
    words = _ABOUT_ONE_REQUEST.search(message)
    if status not in _RETRIED_STATUS and status < 500 and words:
        sort = "prompt too long" if re.search(_TOO_LONG, message, re.IGNORECASE) else "moderated"
        return AttemptError(f"{sort} ({reason})", trouble="request", detail=message, status=status, max_retries=0)
    if (status in _RETRIED_STATUS or status >= 500) and not NO_CREDIT.search(message):
        wait = retry_after_seconds(headers)
        if wait <= _LONGEST_RETRY_AFTER:
            return AttemptError(reason, detail=message, status=status, wait=wait)
        message = f"{message}; it asks to wait {wait:.0f} s"
    return AttemptError(reason, trouble="refused", detail=message, status=status, max_retries=0)
