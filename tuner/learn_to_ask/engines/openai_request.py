"""Makes the requests to an OpenAI-compatible server, and fits them to what it refuses by name."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tuner.learn_to_ask.core.responses import well_formed
from tuner.learn_to_ask.engines.base import Applied, Sampling, as_asked
from tuner.learn_to_ask.errors import UserError

# What plain OpenAI servers do not know, in the order of how much they matter.
_EXTRA = ("chat_template_kwargs", "repetition_penalty")
_NEVER_LEFT_OUT = frozenset({"model", "messages", "max_tokens", "max_completion_tokens", "n", "stream"})
_RANGE = re.compile(
    r"less than|greater than|between|in the range|at (most|least)|<=|>=|must be (in|non|positive)", re.IGNORECASE
)
_UNKNOWN_FIELDS = re.compile(
    r"extra (inputs|fields)|additional propert"
    r"|(unknown|unexpected|unrecogni[sz]ed|unsupported) (field|param|arg|prop|key)",
    re.IGNORECASE,
)
_STREAM_ONLY = re.compile(
    r"only supports? stream|enable the stream|stream mode|stream(ing)? (is )?required"
    r"|stream\W+(must|should) be (set to )?true",
    re.IGNORECASE,
)


def parse_extra_json(text: str) -> dict[str, Any]:
    """The fields of `--extra_json`.

    Raises:
        UserError: When it is no JSON object.
    """
    try:
        fields = json.loads(text or "{}")
    except ValueError as error:
        raise UserError(f"--extra_json is not JSON ({error}); it must look like '{{\"top_p\": null}}'") from error
    if not isinstance(fields, dict):
        raise UserError("--extra_json must be a JSON object, like '{\"top_p\": null}'")
    return fields


class RequestForm:
    """What one run sends, the same for every request.

    Attributes:
        separate: Whether each answer needs a request of its own, because the server does not know `n`.
        version: Grows whenever something is learned.
    """

    def __init__(self, *, model: str, extra_body: bool, extra: Mapping[str, Any], stream: bool) -> None:
        self._model = model
        self._extra_body = extra_body
        self._set: dict[str, Any] = {name: value for name, value in extra.items() if value is not None}
        self._dropped = {name for name, value in extra.items() if value is None}
        self._names: dict[str, str] = {}
        self.separate = False
        self.version = 0
        if stream:
            self._switch_streaming_on()

    def body(self, messages: list[dict[str, str]], sampling: Sampling, *, n: int) -> dict[str, Any]:
        """The JSON to send for `n` answers."""
        fields: dict[str, Any] = {
            "model": self._model,
            "messages": [{**message, "content": well_formed(message["content"])} for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if n > 1:
            fields["n"] = n
        if self._extra_body:
            fields["chat_template_kwargs"] = {"enable_thinking": False}
            if sampling.repetition_penalty != 1.0:
                fields["repetition_penalty"] = sampling.repetition_penalty
        fields |= self._set
        return {self._names.get(name, name): value for name, value in fields.items() if name not in self._dropped}

    def applied(self, sampling: Sampling) -> Applied:
        """What is sent of a sampling; a repetition penalty of 1.0, which is none, needs no sending."""
        sent = self.body([], sampling, n=1)
        applied: Applied = {name: sent.get(self._names.get(name, name)) for name in as_asked(sampling)}
        if sampling.repetition_penalty == 1.0 and applied["repetition_penalty"] is None:
            applied["repetition_penalty"] = 1.0
        return applied

    def learn(self, message: str, sent: Mapping[str, Any]) -> str:
        """Fits the form to a refusal.

        Args:
            message: What the server said.
            sent: The request it refused.

        Returns:
            What is done from here on, `""` when the refusal names nothing that can be left out.
        """
        done = self._learned(message, [name for name in sent if name not in ("model", "messages")], sent)
        self.version += bool(done)
        return done

    def _learned(self, message: str, names: list[str], sent: Mapping[str, Any]) -> str:  # noqa: PLR0911
        """As `learn`; one return for each way to fit."""
        if "max_tokens" in sent and (_names(message, "max_completion_tokens") or _refused_max_tokens(message)):
            self._names["max_tokens"] = "max_completion_tokens"
            return "max_tokens goes as max_completion_tokens"
        if _names(message, "enable_thinking") and "chat_template_kwargs" not in message:
            if "enable_thinking" in sent:
                return self._drop("enable_thinking")
            self._set["enable_thinking"] = False
            return "enable_thinking: false is added"
        if "stream" not in sent and _STREAM_ONLY.search(message):
            self._switch_streaming_on()
            return "answers are streamed"
        if "n" in sent and re.search(r"(['\"`])n\1|\bparameter:? n\b|\bn (must|should|is|>)|\bn=", message):
            self.separate = True
            return "each answer gets a request of its own instead of `n`"
        named = [name for name in names if name not in _NEVER_LEFT_OUT and _names(message, name)]
        if not named and _UNKNOWN_FIELDS.search(message):
            named = [name for name in names if name in _EXTRA or name in self._set]
        if {"temperature", "top_p"} <= set(named):
            named.remove("temperature")
        if not named or _RANGE.search(message):
            return ""
        return self._drop(*named)

    def _drop(self, *names: str) -> str:
        """Leaves fields out from here on."""
        self._dropped |= set(names)
        hint = " (--no-extra_body)" if set(names) & set(_EXTRA) else ""
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left out{hint}"

    def _switch_streaming_on(self) -> None:
        """Asks for server-sent events, with the token counts at their end."""
        self._set |= {"stream": True, "stream_options": {"include_usage": True}}


def _names(message: str, field: str) -> bool:
    """Whether a message names a field as a word."""
    return re.search(rf"(?<![A-Za-z_]){re.escape(field)}(?![A-Za-z_])", message) is not None


def _refused_max_tokens(message: str) -> bool:
    """Whether `max_tokens` as such is refused, not its value."""
    return (
        _names(message, "max_tokens") and re.search(r"unsupported|not supported|deprecated", message, re.I) is not None
    )
