"""Reads what an OpenAI-compatible server sends: answers in every common form, and what its errors mean."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from tuner.learn_to_ask.engines.base import CUT_OFF
from tuner.learn_to_ask.engines.openai_address import Address

# Why a request has no answer: it alone is at fault; the server refuses it; nobody can be reached; what came is of no
# use; the rest.
Trouble = Literal["request", "refused", "unreachable", "answer", "failed"]

NO_CREDIT = re.compile(
    r"insufficient[ _](quota|balance|credit|fund)|exceeded your current quota|arrear|余额|欠费", re.IGNORECASE
)
# What an error in a reply with status 200 is about, where it brings no status of its own.
_STATUS_OF_WORDS = (
    (402, NO_CREDIT),
    (429, re.compile(r"rate.?limit|too many requests|overloaded|try again|频率|限流", re.IGNORECASE)),
    (401, re.compile(r"api.?key|unauthori[sz]ed|authentication|invalid token", re.IGNORECASE)),
    (404, re.compile(r"endpoint|not found|does not exist|invalid url|unknown (url|model)", re.IGNORECASE)),
)
_CUT_OFF = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_STOPPED_BY_SERVER = {"content_filter": "moderated", "sensitive": "moderated", "error": "server error"}
_THOUGHTS = ("thinking", "reasoning")
EMPTY_ANSWER = "empty answer"
_FEW_RETRIES = 2  # answers that are paid for and mostly come back the same


@dataclass(eq=False)
class AttemptError(Exception):
    """One try that brought no answer.

    Attributes:
        reason: Few different ones: the summary counts by it.
        trouble: Whose it is.
        detail: What the server or the network said.
        status: HTTP status, or the one that the server's words mean; 0 for none.
        wait: Seconds that the server wants to be left alone.
        max_retries: How often it is worth to try again.
        address: Who was asked.
    """

    reason: str
    trouble: Trouble = "failed"
    detail: str = ""
    status: int = 0
    wait: float = 0.0
    max_retries: int = sys.maxsize
    address: Address = field(init=False, repr=False)

    @property
    def said(self) -> str:
        """The reason with what the other side said."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(slots=True)
class Answers:
    """What has come back for one request.

    Attributes:
        texts: The answers.
        cut_off: Which of them did not come to their end.
        error: Why there are not as many as asked for, `""` when there are.
        failure: The last try, when nothing came of it.
        prompt_tokens: Tokens read over all tries, 0 where the server does not say.
        completion_tokens: Tokens written, likewise.
    """

    texts: list[str] = field(default_factory=list)
    cut_off: list[bool] = field(default_factory=list)
    error: str = ""
    failure: AttemptError | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, body: dict[str, Any], n: int) -> None:
        """Adds the up to `n` answers of a reply.

        Raises:
            AttemptError: When it holds none that could be one.
        """
        usage = body.get("usage")
        if isinstance(usage, dict):
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self.prompt_tokens += prompt if isinstance(prompt, int) else 0
            self.completion_tokens += completion if isinstance(completion, int) else 0
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            raise AttemptError("empty choice list", "answer", max_retries=_FEW_RETRIES)
        before = len(self.texts)
        for choice in choices[:n]:
            try:
                text, why = _read_choice(choice)
            except (KeyError, TypeError, AttributeError):
                raise AttemptError("unreadable body", "answer", max_retries=_FEW_RETRIES) from None
            if why:
                self.error = why
            else:
                self.texts.append(text)
                self.cut_off.append(choice.get("finish_reason") in _CUT_OFF)
        if len(self.texts) == before:
            reason, self.error = self.error, ""
            raise AttemptError(reason, "answer", max_retries=_FEW_RETRIES if reason == EMPTY_ANSWER else 0)


def _read_choice(choice: dict[str, Any]) -> tuple[str, str]:
    """The text of a choice, and why it is no answer, `""` when it is one."""
    message = choice["message"] if "message" in choice else {"content": choice["text"]}
    text, thoughts = _read_content(message.get("content"))
    thought = bool(thoughts or message.get("reasoning_content") or message.get("reasoning"))
    finish = choice.get("finish_reason")
    if finish in _CUT_OFF and not text:
        return "", f"{CUT_OFF}, all of it reasoning" if thought else CUT_OFF
    if finish in _STOPPED_BY_SERVER:
        return "", _STOPPED_BY_SERVER[finish]
    if text is None or (not text and thought):
        return "", "no answer after its reasoning" if thought else EMPTY_ANSWER
    return text, ""


def _read_content(content: object) -> tuple[str | None, bool]:
    """The text of a message, which may come in parts, and whether some of these are reasoning."""
    if content is None or isinstance(content, str):
        return content, False
    if not isinstance(content, list):
        raise TypeError("neither text nor parts")
    parts = [{"text": part} if isinstance(part, str) else part for part in content]
    said = [part.get("text") for part in parts if part.get("type") not in _THOUGHTS]
    return "".join(text for text in said if isinstance(text, str)), len(said) < len(parts)


def read_body(text: str) -> dict[str, Any]:
    """The JSON object of a reply; server-sent events are put together.

    Raises:
        AttemptError: When it is something else.
    """
    if text.startswith("<"):
        raise AttemptError("a web page instead of JSON", "refused", status=404, max_retries=0)
    try:
        body = _joined_events(text) if text.startswith(("data:", "event:", ":")) else json.loads(text)
    except (ValueError, RecursionError, AttributeError, TypeError):
        body = None
    if not isinstance(body, dict):
        raise AttemptError("unreadable body")
    return body


def _joined_events(text: str) -> dict[str, Any]:
    """The reply that server-sent events make together; without its end it is unreadable."""
    choices: dict[int, dict[str, Any]] = {}
    body: dict[str, Any] = {}
    lines = [line.removeprefix("data:").strip() for line in text.split("\n") if line.startswith("data:")]
    for event in [json.loads(line) for line in lines if line not in ("", "[DONE]")]:
        if error_status(event):
            return dict(event)
        for choice in event.get("choices") or ():
            kept = choices.setdefault(choice.get("index", 0), {"message": {"content": "", "reasoning": ""}})
            delta = choice.get("delta") or choice.get("message") or {}
            kept["message"]["content"] += _read_content(delta.get("content"))[0] or ""
            kept["message"]["reasoning"] += delta.get("reasoning_content") or delta.get("reasoning") or ""
            kept["finish_reason"] = choice.get("finish_reason") or kept.get("finish_reason")
        body["usage"] = event.get("usage") or body.get("usage")
    finished = choices and all(choice["finish_reason"] for choice in choices.values())
    if not (finished or "[DONE]" in lines):
        raise ValueError("cut short")
    return {**body, "choices": [choices[index] for index in sorted(choices)]}


def error_status(body: dict[str, Any]) -> int:
    """The status that an error in a reply with status 200 means, 0 for a completion."""
    error = body.get("error")
    if not error and not body.get("choices") and (body.get("object") == "error" or {"code", "message"} <= body.keys()):
        error = body
    if not error:
        return 0
    inner = error if isinstance(error, dict) else {}
    codes = [str(code) for code in (inner.get("code"), inner.get("status"), body.get("code"))]
    if known := [int(code) for code in codes if code.isdecimal() and 400 <= int(code) < 600]:
        return known[0]
    words = f"{error_message(body)} {codes[0]}"
    return next((status for status, pattern in _STATUS_OF_WORDS if pattern.search(words)), 502)


def error_message(body: object) -> str:
    """The message of the usual JSON forms of an error."""
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "msg", "detail") if body.get(name)), "")
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)


def error_words(text: str, status: int) -> str:
    """What an error response says, with the code and the parameter that it names."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    message = error_message(body)
    inner = body.get("error") if isinstance(body, dict) else None
    named = {str(inner.get(name) or status) for name in ("code", "param")} if isinstance(inner, dict) else set()
    return " ".join([message, *(f"({word})" for word in sorted(named - {str(status)}) if word not in message)])


def network_error(error: Exception, *, connect_timeout: float, read_timeout: float) -> AttemptError:
    """What an error of aiohttp means.

    Args:
        error: As it was raised.
        connect_timeout: Seconds that a connection could take.
        read_timeout: Seconds that an answer could take.
    """
    import aiohttp

    detail = str(error.__cause__ or error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return AttemptError("certificate refused", "unreachable", detail, max_retries=0)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return AttemptError(f"no connection within {connect_timeout:g} s", "unreachable")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        return AttemptError("cannot connect", "unreachable", detail)
    if isinstance(error, TimeoutError):
        return AttemptError(f"no answer within {read_timeout:g} s")
    return AttemptError("connection cut", detail=detail)


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Seconds that a reply asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date; 0 for neither."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
            return float(value) / scale
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
