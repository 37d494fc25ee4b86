"""What an OpenAI-compatible endpoint's address, key and responses say."""

import ipaddress
import json
import os
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from tuner.learn_to_ask.engines.openai_run import AttemptError
from tuner.learn_to_ask.errors import UserError

_EMPTY_ANSWER_RETRIES = 2  # such answers are paid for, and mostly come back the same


def parse_url(base_url: str) -> httpx.URL:
    """The base URL, checked; it is not shown where it is wrong, because it may hold a password."""
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


def read_key(variable: str, *, required: bool) -> str:
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


def well_formed(text: str) -> str:
    """Surrogate pairs become the character they stand for, lone ones U+FFFD: UTF-8 has neither."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def read_body(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that a server sent."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise AttemptError("unreadable body")
    return body


def read_texts(body: dict[str, Any], n: int) -> list[str]:
    """The n answers of a body."""
    choices = body.get("choices")
    if not choices:
        raise AttemptError("empty choice list", max_retries=_EMPTY_ANSWER_RETRIES)
    try:
        texts = [choice["message"]["content"] for choice in choices[:n]]
    except (KeyError, TypeError):
        raise AttemptError("unreadable body") from None
    if None in texts:
        raise AttemptError("empty answer", max_retries=_EMPTY_ANSWER_RETRIES)
    if not all(isinstance(text, str) for text in texts):
        raise AttemptError("unreadable body")
    if len(texts) < n:
        raise AttemptError(f"{len(texts)} of {n} answers", detail="the server ignores `n`", max_retries=0)
    return texts


def read_tokens(body: dict[str, Any], name: str) -> int:
    """A count of the body's usage, 0 where the server gives none."""
    usage = body.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0


def server_message(response: httpx.Response) -> str:
    """What a server says about an error: the message of the usual JSON forms, else the text."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "detail") if body.get(name)), "")
    return body if isinstance(body, str) else json.dumps(body)


def retry_after_seconds(value: str) -> float:
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
