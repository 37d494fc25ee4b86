"""Where an OpenAI-compatible server is and how it is asked: URL, key, the way there."""

import ipaddress
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

from tuner.learn_to_ask.errors import UserError

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is served and how it is asked.

    Attributes:
        base_url: Up to and including `/v1`; credentials and a query may be in it.
        model: The name under which the server offers the model.
        api_key_env: The environment variable that holds the key; servers on this machine need none.
        api_key_header: The header that carries it; `""` for `Authorization`, or for `api-key` at an address of Azure.
        connect_timeout: Seconds for a connection.
        read_timeout: Seconds for a whole answer.
        max_retries: How often a request is sent again after trouble with the network or the server.
        extra_body: Whether to send what plain OpenAI servers refuse and vLLM and others know:
            `repetition_penalty`, and `chat_template_kwargs` to switch thinking off.
        extra_json: A JSON object of fields to add, or with null to leave out.
        stream: Whether to ask for server-sent events.
        backoff_base: Seconds; the nth retry waits a random time up to this times 2**n.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    api_key_header: str = ""
    connect_timeout: float = 10.0
    read_timeout: float = 600.0
    max_retries: int = 8
    extra_body: bool = True
    extra_json: str = ""
    stream: bool = False
    backoff_base: float = 0.5


def parse_url(base_url: str) -> "httpx.URL":
    """The base URL, checked; it is not shown where it is wrong, because it may hold a password."""
    import httpx

    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError("the base URL of the openai engine must look like http://localhost:8000/v1")
    return url


def is_local(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def is_azure(url: "httpx.URL") -> bool:
    """Whether a server wants its key as Azure OpenAI does."""
    return "/openai/deployments/" in url.path or url.host.endswith(
        (".openai.azure.com", ".cognitiveservices.azure.com")
    )


def check_proxy(url: "httpx.URL") -> None:
    """Refuses a proxy that the HTTP client cannot speak to.

    Raises:
        UserError: Naming the variable.
    """
    proxies = getproxies()
    for name in (url.scheme, "all"):
        proxy = proxies.get(name, "")
        if proxy and not proxy_bypass(url.host):
            if proxy.partition("://")[0].startswith("socks"):
                raise UserError(
                    f"the proxy {name.upper()}_PROXY speaks SOCKS, which this client does not: name an http:// proxy "
                    f"(most tools offer both), or set NO_PROXY={url.host}"
                )
            return


def read_key(variable: str, *, required: bool) -> str:
    """The key, `""` where there is none and none is needed.

    Raises:
        UserError: Naming the variable, never the value.
    """
    key = os.environ.get(variable, "").strip(" \t\r\n\u200b\ufeff")
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


def make_http_client(**options: Any) -> "httpx.AsyncClient":
    """The SDK's client on aiohttp, without what would cost a sixth of a request: it keeps no cookies.

    It has aiohttp write `Authorization`, where httpx hands on small letters: some gateways compare them.

    Args:
        options: Of `httpx.AsyncClient`.
    """
    client, spelled_headers = _client_classes()

    async def spell_headers(request: "httpx.Request") -> None:
        request.headers = spelled_headers(request.headers)

    return client(follow_redirects=False, event_hooks={"request": [spell_headers]}, **options)


@cache
def _client_classes() -> "tuple[type[httpx.AsyncClient], type[httpx.Headers]]":
    """The client, and headers with names as they are mostly written; made once, on first use."""
    import httpx
    import openai

    class NoCookies(httpx.Cookies):
        def extract_cookies(self, response: httpx.Response) -> None:
            pass

    class Client(openai.DefaultAioHttpClient):
        cookies = NoCookies()  # type: ignore[override]

    class SpelledHeaders(httpx.Headers):
        def items(self) -> Any:
            return [(name.decode("ascii").title(), value.decode("latin-1")) for name, value in self.raw]

    return Client, SpelledHeaders
