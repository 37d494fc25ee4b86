"""Where an OpenAI-compatible server is and how it is asked: URL, key, the way there."""

import ipaddress
import os
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

from tuner.learn_to_ask.errors import UserError

if TYPE_CHECKING:
    import yarl

_SHORTEST_SECRET = 6  # placeholders such as EMPTY are no secrets, and are words


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is served and how it is asked.

    Attributes:
        base_url: Up to and including `/v1`; credentials and a query may be in it. Several servers of one model are
            separated by spaces; the first gives its name to what they answer.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The way to a server.

    Attributes:
        base_url: For showing: without credentials and query.
        host: Its host and port.
        completions: Where questions go.
        models: Where the server says what it offers.
        headers: They hold the key.
        proxy: On the way there, `None` for none.
        secrets: What may never be shown.
    """

    base_url: str
    host: str
    completions: "yarl.URL"
    models: "yarl.URL"
    headers: dict[str, str]
    proxy: str | None
    secrets: tuple[str, ...]


def find_addresses(endpoint: Endpoint) -> list[Address]:
    """Looks up all that is needed to ask the servers, each of which is named once.

    Raises:
        UserError: When URL, key or proxy cannot be used. The URL is not shown, because it may hold a password.
    """
    return [_find_address(base_url, endpoint) for base_url in dict.fromkeys(endpoint.base_url.split()) or [""]]


def _find_address(base_url: str, endpoint: Endpoint) -> Address:
    """As `find_addresses`, of one server."""
    import yarl

    try:
        url = yarl.URL(base_url)
    except ValueError:
        url = yarl.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError("the base URL of the openai engine must look like http://localhost:8000/v1")
    local = _is_local(url.host)
    key = _read_key(endpoint.api_key_env, required=not local and url.user is None)
    header = endpoint.api_key_header or ("api-key" if _is_azure(url) else "Authorization")
    headers = {header: f"Bearer {key}" if header == "Authorization" else key} if key else {}
    if url.user is not None:
        credentials = f"{url.user}:{url.password or ''}".encode()
        headers["Authorization"] = f"Basic {b64encode(credentials).decode()}"
    plain = url.with_user(None)
    proxy = None if local else _find_proxy(url.scheme, url.host)
    secrets = (key, url.password or "", yarl.URL(proxy or "").password or "")
    return Address(
        base_url=str(plain.with_query(None).with_fragment(None)).rstrip("/"),
        host=plain.host_port_subcomponent or "",
        completions=plain.joinpath("chat/completions").with_query(url.query),
        models=plain.joinpath("models").with_query(url.query),
        headers=headers,
        proxy=proxy,
        secrets=tuple(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET),
    )


def _is_local(host: str) -> bool:
    """Whether a host is this machine."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


def _is_azure(url: "yarl.URL") -> bool:
    """Whether a server wants its key as Azure OpenAI does."""
    hosts = (".openai.azure.com", ".cognitiveservices.azure.com")
    return "/openai/deployments/" in url.path or str(url.host).endswith(hosts)


def _find_proxy(scheme: str, host: str) -> str | None:
    """The proxy of the environment, also `ALL_PROXY`.

    Raises:
        UserError: Naming the variable of one that speaks SOCKS.
    """
    proxies = {} if proxy_bypass(host) else getproxies()
    name, proxy = next(((name, proxies[name]) for name in (scheme, "all") if proxies.get(name)), ("", None))
    if proxy and proxy.startswith("socks"):
        raise UserError(
            f"the proxy {name.upper()}_PROXY speaks SOCKS, which this client does not: name an http:// proxy "
            f"(most tools offer both), or set NO_PROXY={host}"
        )
    return proxy


def _read_key(variable: str, *, required: bool) -> str:
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
        raise UserError(f"the key in the environment variable {variable} holds spaces or odd characters: set it again")
    return key
