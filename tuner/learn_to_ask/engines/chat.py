"""Turns a conversation into a model's prompt tokens, shortened where it does not fit."""

from typing import Any


def encode_chat(
    tokenizer: Any, messages: list[dict[str, str]], *, max_prompt_tokens: int | None
) -> tuple[list[int], bool]:
    """Applies the tokenizer's chat template, with thinking switched off where a template knows it.

    A prompt that is too long loses its oldest turns, never the system prompt or the last message.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        messages: The conversation.
        max_prompt_tokens: Longest prompt, `None` for no limit.

    Returns:
        The token ids, and whether turns were dropped. They still exceed the limit when the system prompt
        and the last message alone do.
    """

    def encode(part: list[dict[str, str]]) -> list[int]:
        text = tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    ids = encode(messages)
    if max_prompt_tokens is None or len(ids) <= max_prompt_tokens:
        return ids, False
    head = 1 if messages[0]["role"] == "system" else 0
    # The fewest oldest turns to drop: fewer tokens with every turn dropped, so a binary search finds it.
    least, most = 1, len(messages) - head - 1
    while least < most:
        middle = (least + most) // 2
        if len(encode(messages[:head] + messages[head + middle :])) <= max_prompt_tokens:
            most = middle
        else:
            least = middle + 1
    return encode(messages[:head] + messages[head + most :]), True
