"""Reads what an OpenAI-compatible server sends: answers in every common form, and what its errors mean."""

import json
import re
import ssl
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from tuner.learn_to_ask.engines.base import CUT_OFF

if TYPE_CHECKING:
    import httpx

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
EMPTY_ANSWER = "empty answer"
_FEW_RETRIES = 2  # answers that are paid for and mostly come back the same


class AttemptError(Exception):
    """One try that brought no answer.

    Attributes:
        reason: Few different ones: the summary counts by it.
        trouble: Whose it is.
        detail: What the server or the network said.
        status: HTTP status, or the one that the server's words mean; 0 for none.
        wait: Seconds that the server wants to be left alone.
        max_retries: How often it is worth to try again.
        prompt_tokens: Paid for all the same.
        completion_tokens: Likewise.
    """

    def __init__(
        self,
        reason: str,
        *,
        trouble: Trouble = "failed",
        detail: str = "",
        status: int = 0,
        wait: float = 0.0,
        max_retries: int = sys.maxsize,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.trouble: Trouble = trouble
        self.detail = detail
        self.status = status
        self.wait = wait
        self.max_retries = max_retries
        self.prompt_tokens = self.completion_tokens = 0

    @property
    def said(self) -> str:
        """The reason with what the other side said."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(slots=True)
class Answers:
    """What one reply holds.

    Attributes:
        texts: The answers.
        cut_off: Which of them did not come to their end.
        error: Why there are not as many as asked for, `""` when there are.
        prompt_tokens: Tokens read, 0 where the server does not say.
        completion_tokens: Tokens written, likewise.
    """

    texts: list[str] = field(default_factory=list)
    cut_off: list[bool] = field(default_factory=list)
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_body(content: bytes) -> dict[str, Any]:
    """The JSON object of a reply; server-sent events are put together.

    Raises:
        AttemptError: When it is something else.
    """
    text = content.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        raise AttemptError("a web page instead of JSON", trouble="refused", status=404, max_retries=0)
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
    ended = False
    for line in text.split("\n"):
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            ended = True
        if not data or data == "[DONE]":
            continue
        event = json.loads(data)
        if body_error(event):
            return dict(event)
        for choice in event.get("choices") or ():
            index = choice.get("index", 0)
            kept = choices.setdefault(index, {"message": {"content": "", "reasoning": ""}, "finish_reason": None})
            delta = choice.get("delta") or choice.get("message") or {}
            kept["message"]["content"] += _text(delta.get("content")) or ""
            kept["message"]["reasoning"] += delta.get("reasoning_content") or delta.get("reasoning") or ""
            kept["finish_reason"] = choice.get("finish_reason") or kept["finish_reason"]
        body["usage"] = event.get("usage") or body.get("usage")
    finished = choices and all(choice["finish_reason"] for choice in choices.values())
    if not (ended or finished):
        raise ValueError("cut short")
    return {**body, "choices": [choices[index] for index in sorted(choices)]}


def body_error(body: dict[str, Any]) -> tuple[int, str] | None:
    """Status and message of an error that came with status 200, `None` for a completion."""
    error = body.get("error")
    if not error and not body.get("choices") and (body.get("object") == "error" or {"code", "message"} <= body.keys()):
        error = body
    if not error:
        return None
    message = error_message(body)
    inner = error if isinstance(error, dict) else {}
    codes = [str(code) for code in (inner.get("code"), inner.get("status"), body.get("code"))]
    for code in codes:
        if code.isdecimal() and 400 <= int(code) < 600:
            return int(code), message
    words = f"{message} {codes[0]}"
    return next((status for status, pattern in _STATUS_OF_WORDS if pattern.search(words)), 502), message


def error_message(body: object) -> str:
    """The message of the usual JSON forms of an error."""
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "msg", "detail") if body.get(name)), "")
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)


def read_answers(body: dict[str, Any], n: int) -> Answers:
    """The answers of a body.

    Raises:
        AttemptError: When it holds none that could be one.
    """
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    tokens = [
        count if isinstance(count := counts.get(name), int) else 0 for name in ("prompt_tokens", "completion_tokens")
    ]
    answers = Answers(prompt_tokens=tokens[0], completion_tokens=tokens[1])
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _useless("empty choice list", answers, max_retries=_FEW_RETRIES)
    for choice in choices[:n]:
        try:
            message = choice["message"] if "message" in choice else {"content": choice["text"]}
            text, reasoning = _text(message.get("content")), _reasoning(message)
        except (KeyError, TypeError, AttributeError):
            raise _useless("unreadable body", answers, max_retries=_FEW_RETRIES) from None
        finish = choice.get("finish_reason")
        if finish in _CUT_OFF and not text:
            answers.error = f"{CUT_OFF}, all of it reasoning" if reasoning else CUT_OFF
        elif finish in _STOPPED_BY_SERVER:
            answers.error = _STOPPED_BY_SERVER[finish]
        elif text is None or (not text and reasoning):
            answers.error = "no answer after its reasoning" if reasoning else EMPTY_ANSWER
        else:
            answers.texts.append(text)
            answers.cut_off.append(finish in _CUT_OFF)
    if not answers.texts:
        raise _useless(answers.error, answers, max_retries=_FEW_RETRIES if answers.error == EMPTY_ANSWER else 0)
    return answers


def _useless(reason: str, answers: Answers, *, max_retries: int) -> AttemptError:
    """The error of a reply that cost something and brings nothing."""
    error = AttemptError(reason, trouble="answer", max_retries=max_retries)
    error.prompt_tokens, error.completion_tokens = answers.prompt_tokens, answers.completion_tokens
    return error


def _text(content: object) -> str | None:
    """The text of a message: a string, or parts of which those that hold text count."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError("neither text nor parts")
    parts = [part if isinstance(part, str) else part.get("text") for part in content if not _is_thought(part)]
    return "".join(part for part in parts if isinstance(part, str))


def _is_thought(part: object) -> bool:
    """Whether a part of a message is reasoning."""
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _reasoning(message: dict[str, Any]) -> bool:
    """Whether a model that thinks has said something before its answer."""
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    return bool(message.get("reasoning_content") or message.get("reasoning") or any(map(_is_thought, parts)))


def network_error(error: BaseException, *, connect_timeout: float, read_timeout: float) -> AttemptError:
    """What an error of the network means; aiohttp's own errors, at the end of the chain, tell most.

    Args:
        error: Of the SDK.
        connect_timeout: Seconds that a connection could take.
        read_timeout: Seconds that an answer could take.
    """
    import aiohttp

    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)

    def has(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    detail = str(causes[-1])
    if has(ssl.SSLCertVerificationError):
        return AttemptError("certificate refused", trouble="unreachable", detail=detail, max_retries=0)
    if has(aiohttp.ConnectionTimeoutError):
        return AttemptError(f"no connection within {connect_timeout:g} s", trouble="unreachable")
    if has(aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
        return AttemptError("cannot connect", trouble="unreachable", detail=detail)
    if has(TimeoutError):
        return AttemptError(f"no answer within {read_timeout:g} s")
    return AttemptError("connection cut", detail=detail)


def retry_after_seconds(headers: "httpx.Headers") -> float:
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
