"""Makes the requests to an OpenAI-compatible server, and fits them to what it refuses by name."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tuner.learn_to_ask.core.responses import well_formed
from tuner.learn_to_ask.engines.base import Applied, Sampling, as_asked
from tuner.learn_to_ask.engines.openai_address import Endpoint
from tuner.learn_to_ask.errors import UserError

_EXTRA = {"chat_template_kwargs", "repetition_penalty"}  # what plain OpenAI servers do not know
_NEVER_LEFT_OUT = {"model", "messages", "max_tokens", "max_completion_tokens", "n", "stream"}
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}  # with the token counts at the end
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
_NO_SEVERAL = re.compile(r"(['\"`])n\1|\bparameter:? n\b|\bn (must|should|is|>)|\bn=")
_UNSUPPORTED = re.compile("unsupported|not supported|deprecated", re.IGNORECASE)  # the field, not its value


class RequestForm:
    """What one run sends, the same for every request.

    Attributes:
        separate: Whether each answer needs a request of its own, because the server does not know `n`.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Nothing is learned yet.

        Raises:
            UserError: When `extra_json` is no JSON object.
        """
        try:
            extra = json.loads(endpoint.extra_json or "{}")
        except ValueError as error:
            raise UserError(f"--extra_json is not JSON ({error}); it must look like '{{\"top_p\": null}}'") from error
        if not isinstance(extra, dict):
            raise UserError("--extra_json must be a JSON object, like '{\"top_p\": null}'")
        self._endpoint = endpoint
        self._changed: dict[str, Any] = (_STREAMED if endpoint.stream else {}) | extra  # `None` leaves out
        self._names: dict[str, str] = {}
        self.separate = False

    def body(self, messages: list[dict[str, str]], sampling: Sampling, *, n: int) -> dict[str, Any]:
        """The JSON to send for `n` answers."""
        fields: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{**message, "content": well_formed(message["content"])} for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": n if n > 1 else None,
        }
        if self._endpoint.extra_body:
            fields["chat_template_kwargs"] = {"enable_thinking": False}
            fields["repetition_penalty"] = sampling.repetition_penalty if sampling.repetition_penalty != 1.0 else None
        fields |= self._changed
        return {self._names.get(name, name): value for name, value in fields.items() if value is not None}

    def applied(self, sampling: Sampling) -> Applied:
        """What is sent of a sampling; a repetition penalty of 1.0, which is none, needs no sending."""
        sent = self.body([], sampling, n=1)
        if sampling.repetition_penalty == 1.0:
            sent.setdefault("repetition_penalty", 1.0)
        return {name: sent.get(self._names.get(name, name)) for name in as_asked(sampling)}

    def learn(self, message: str, sent: Mapping[str, Any]) -> str:
        """Fits the form to a refusal; of requests that were under way together, each is told the same.

        Args:
            message: What the server said.
            sent: The request it refused.

        Returns:
            What is done from here on, `""` when the refusal names nothing that can be left out.
        """
        named = {name for name in sent if re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", message)}
        renamed = "max_completion_tokens" in message or ("max_tokens" in named and _UNSUPPORTED.search(message))
        if renamed and "max_tokens" in sent:
            self._names["max_tokens"] = "max_completion_tokens"
            return "max_tokens goes as max_completion_tokens"
        if "enable_thinking" in message and "enable_thinking" not in sent and "chat_template_kwargs" not in message:
            self._changed["enable_thinking"] = False
            return "enable_thinking: false is added"
        if "stream" not in sent and _STREAM_ONLY.search(message):
            self._changed |= _STREAMED
            return "answers are streamed"
        if "n" in sent and _NO_SEVERAL.search(message):
            self.separate = True
            return "each answer gets a request of its own instead of `n`"
        named -= _NEVER_LEFT_OUT
        if not named and _UNKNOWN_FIELDS.search(message):
            named = sent.keys() & (_EXTRA | self._changed.keys()) - _NEVER_LEFT_OUT
        if {"temperature", "top_p"} <= named:
            named.remove("temperature")
        if not named or _RANGE.search(message):
            return ""
        self._changed |= dict.fromkeys(named)
        hint = " (--no-extra_body)" if named & _EXTRA else ""
        return f"{', '.join(sorted(named))} {'is' if len(named) == 1 else 'are'} left out{hint}"
