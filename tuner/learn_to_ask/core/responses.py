"""Frees what a model said from its reasoning and from special tokens, alike in training and evaluation."""

import re
from collections.abc import Iterable

_THINK = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


def strip_reasoning(text: str) -> str:
    """What a thinking model says besides its `<think>` part, whether the part is closed or not.

    Some chat templates end with `<think>`, so that only the closing tag arrives. A text without reasoning
    comes back as it is, white space included: whether a response is exactly `<stop />` must not depend on
    this function.
    """
    if "<think>" not in text and "</think>" not in text:
        return text
    return _THINK.sub("", text).rpartition("</think>")[2].strip()


def is_cut_off(text: str) -> bool:
    """Whether a text ends inside its `<think>` part, so that the answer never came."""
    return text.rfind("<think>") > text.rfind("</think>")


def cut_at_special_token(text: str, special_tokens: Iterable[str]) -> str:
    """The text up to the first special token.

    Trinity's Tinker engine decodes what was sampled with its special tokens, so that a perfect stop arrives
    as `<stop /><|im_end|>`; vLLM removes them itself, and nothing is left to cut.

    Args:
        text: A response as the chat model returned it.
        special_tokens: The tokenizer's special tokens, such as `<|im_end|>`.
    """
    ends = [position for token in special_tokens if (position := text.find(token)) >= 0]
    return text[: min(ends)] if ends else text


def well_formed(text: str) -> str:
    """Surrogate pairs become the character they stand for, lone ones U+FFFD: UTF-8 has neither."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
