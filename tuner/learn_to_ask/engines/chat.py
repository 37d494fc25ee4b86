"""Turns a conversation into a model's prompt tokens: fitted to its chat template, shortened where it does not fit."""

import sys
from enum import IntEnum
from typing import Any

from tuner.learn_to_ask.errors import UserError

Messages = list[dict[str, str]]


class Fitting(IntEnum):
    """What a chat template needs of a conversation; each does what those before it do."""

    NONE = 0
    JOIN_RUNS = 1
    FOLD_GREETING = 2
    FOLD_SYSTEM = 3


_SAID = {
    Fitting.JOIN_RUNS: "messages of one side that follow each other are joined",
    Fitting.FOLD_GREETING: "messages of one side are joined, and a greeting goes with the patient's first message",
    Fitting.FOLD_SYSTEM: "messages of one side are joined, greeting and system prompt go with the patient's first",
}
_SYSTEM, _PATIENT, _DOCTOR = (
    {"role": role, "content": content} for role, content in (("system", "s"), ("user", "p"), ("assistant", "d"))
)
_MARK = "where-the-answer-ends"
# Between them they have all that a template may refuse.
_HARDEST = (
    [_SYSTEM, _PATIENT, _PATIENT, _DOCTOR, _DOCTOR, _PATIENT],
    [_SYSTEM, _DOCTOR, _PATIENT, _PATIENT],
)


def fit_messages(messages: Messages, fitting: Fitting) -> Messages:
    """A conversation as a strict chat template takes it, with nothing lost.

    Args:
        messages: A system prompt perhaps, then patient and doctor in any order.
        fitting: How much the template wants.
    """
    if fitting == Fitting.NONE:
        return messages
    fitted: Messages = []
    for message in messages:
        if fitted and fitted[-1]["role"] == message["role"]:
            fitted[-1] = {**message, "content": f"{fitted[-1]['content']}\n{message['content']}"}
        else:
            fitted.append(dict(message))
    system = [fitted.pop(0)] if fitted and fitted[0]["role"] == "system" else []
    if fitting >= Fitting.FOLD_GREETING and fitted and fitted[0]["role"] == "assistant":
        fitted = _before_first(f"doctor: {fitted.pop(0)['content']}\n", fitted)
    if fitting >= Fitting.FOLD_SYSTEM and system:
        return _before_first(f"{system[0]['content']}\n\n", fitted)
    return system + fitted


def _before_first(text: str, messages: Messages) -> Messages:
    """Text put before what the patient says first."""
    if not messages:
        return [{"role": "user", "content": text.strip()}]
    return [{**messages[0], "content": text + messages[0]["content"]}, *messages[1:]]


def needed_fitting(tokenizer: Any, model: str) -> Fitting:
    """What a tokenizer's chat template needs.

    Args:
        tokenizer: A Hugging Face tokenizer.
        model: Its name, for messages.

    Raises:
        UserError: When it has no chat template, or one that refuses every conversation.
    """
    from jinja2 import TemplateError

    if getattr(tokenizer, "chat_template", "unknown") is None:
        raise UserError(f"model {model}: its tokenizer has no chat template; choose an instruct or chat model")
    problem = ""
    for fitting in Fitting:
        try:
            for conversation in _HARDEST:
                _render(tokenizer, fit_messages(conversation, fitting))
        except (TemplateError, ValueError, TypeError) as error:
            problem = str(error).split("\n", maxsplit=1)[0]
        else:
            return fitting
    raise UserError(f"model {model}: its chat template refuses plain conversations ({problem}); choose another model")


def check_end_token(tokenizer: Any, model: str, fitting: Fitting) -> None:
    """Makes sure that a model stops where its chat template ends an answer.

    A conversion between formats may leave another end token behind, such as the one that starts a message: answers
    then run on to the limit of their length.

    Args:
        tokenizer: A Hugging Face tokenizer whose chat template takes conversations.
        model: Its folder or name; its generation config may name further end tokens, as Gemma's does.
        fitting: What its chat template needs.

    Raises:
        UserError: Naming both tokens.
    """
    marked = [_PATIENT, {"role": "assistant", "content": _MARK}]
    text = _render(tokenizer, fit_messages(marked, fitting), prompt=False)
    after = text.rpartition(_MARK)[2].lstrip()
    special = {str(token) for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab())}
    written = max((token for token in special if token and after.startswith(token)), key=len, default="")
    if not written or written == tokenizer.eos_token:
        return
    if tokenizer.convert_tokens_to_ids(written) not in _generation_ends(model):
        raise UserError(
            f"model {model}: its end token is {tokenizer.eos_token}, but its chat template ends an answer with "
            f"{written}, so answers would not end; put {written} as eos_token into its tokenizer_config.json"
        )


def _generation_ends(model: str) -> list[int]:
    """The end tokens of a model's generation config, none where there is no such config."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except (OSError, ValueError):
        return []
    return ends if isinstance(ends, list) else [ends]


def tell_fitting(fitting: Fitting, model: str) -> None:
    """Says once what is done to every conversation."""
    if fitting:
        print(f"{model}: for its chat template, {_SAID[fitting]}", file=sys.stderr)


def _render(tokenizer: Any, messages: Messages, *, prompt: bool = True) -> str:
    """The conversation as text, as a prompt or as it is, with thinking switched off where a template knows it."""
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt, enable_thinking=False
    )
    return text


class ChatEncoder:
    """Makes prompts with one tokenizer.

    Attributes:
        fitting: What its chat template needs.
    """

    def __init__(self, tokenizer: Any, model: str) -> None:
        """Tries the chat template.

        Args:
            tokenizer: A Hugging Face tokenizer.
            model: Its name, for messages.

        Raises:
            UserError: When there is no template that takes a conversation, or its answers would not end.
        """
        self._tokenizer = tokenizer
        self.fitting = needed_fitting(tokenizer, model)
        check_end_token(tokenizer, model, self.fitting)

    def encode(self, messages: Messages, *, max_prompt_tokens: int | None = None) -> tuple[list[int], bool]:
        """Applies the chat template.

        A prompt that is too long loses its oldest turns, never the system prompt or the last message.

        Args:
            messages: The conversation.
            max_prompt_tokens: Longest prompt, `None` for no limit.

        Returns:
            The token ids, and whether turns were dropped. They still exceed the limit when the system prompt
            and the last message alone do.
        """
        ids = self._ids(messages)
        if max_prompt_tokens is None or len(ids) <= max_prompt_tokens:
            return ids, False
        head = 1 if messages[0]["role"] == "system" else 0
        # The fewest oldest turns to drop: fewer tokens with every turn dropped, so a binary search finds it.
        least, most = 1, len(messages) - head - 1
        while least < most:
            middle = (least + most) // 2
            if len(self._ids(messages[:head] + messages[head + middle :])) <= max_prompt_tokens:
                most = middle
            else:
                least = middle + 1
        return self._ids(messages[:head] + messages[head + most :]), True

    def _ids(self, messages: Messages) -> list[int]:
        """The tokens of a whole conversation."""
        text = _render(self._tokenizer, fit_messages(messages, self.fitting))
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def of_tokenizer(model_path: str, *, tinker: bool) -> tuple[tuple[str, ...], Fitting]:
    """What the rollouts of a training have to know of the policy's tokenizer.

    Args:
        model_path: The policy.
        tinker: Whether it runs on a Tinker engine.

    Returns:
        The special tokens that a Tinker engine leaves in the text, and what the chat template needs.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    fitting = needed_fitting(tokenizer, model_path)
    tell_fitting(fitting, model_path)
    return tuple(tokenizer.all_special_tokens) if tinker else (), fitting
