"""The ReAct agent that answers a task: one for training and evaluation."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Message
from tuner.learn_to_ask.core.reward import TrainMode
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.prompt import rollout_prompt

if TYPE_CHECKING:
    from agentscope.formatter import FormatterBase
    from agentscope.message import Msg
    from agentscope.model import ChatModelBase

Fit = Callable[[list[dict[str, str]]], list[dict[str, str]]]


async def react_reply(
    messages: Sequence[Message],
    model: "ChatModelBase",
    train_mode: TrainMode,
    fit: Fit | None = None,
    domain: Domain | None = None,
) -> str:
    """Lets a ReAct agent without tools or memory of other tasks reply once; it asks its model once.

    Args:
        messages: The context.
        model: The policy; how it samples is its own business.
        train_mode: Picks the system prompt.
        fit: Changes the conversation for the policy's chat template, where it is a strict one.
        domain: Its texts; the medical one where none is given.

    Returns:
        The reply as the model gave it, `""` when it said nothing.
    """
    from agentscope.agent import ReActAgent
    from agentscope.formatter import OpenAIChatFormatter
    from agentscope.memory import InMemoryMemory
    from agentscope.message import Msg

    domain = domain or default_domain()
    agent = ReActAgent(
        name=domain.speakers.assistant,
        sys_prompt=rollout_prompt(train_mode, domain),
        model=model,
        formatter=_fitting_formatter(fit) if fit else OpenAIChatFormatter(),
        memory=InMemoryMemory(),
        max_iters=1,
    )
    agent.set_console_output_enabled(False)
    reply = await agent.reply(
        [Msg(name=message["role"], content=message["content"], role=message["role"]) for message in messages]
    )
    return reply.get_text_content() or ""


def _fitting_formatter(fit: Fit) -> "FormatterBase":
    """AgentScope's formatter, whose conversations a strict chat template takes."""
    from agentscope.formatter import OpenAIChatFormatter

    class FittingFormatter(OpenAIChatFormatter):  # type: ignore[misc]  # its types are not followed
        async def format(self, msgs: "list[Msg]", **more: Any) -> list[dict[str, Any]]:
            return fit([plain_message(message) for message in await super().format(msgs, **more)])

    return FittingFormatter()


def plain_message(message: dict[str, Any]) -> dict[str, str]:
    """A message of AgentScope's OpenAI formatter, without its name, its text blocks put together.

    Raises:
        ValueError: When it holds anything but text.
    """
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if any(block["type"] != "text" for block in blocks) or message.get("tool_calls"):
        raise ValueError(f"an engine only takes text, not {message}")
    return {"role": message["role"], "content": "".join(block["text"] for block in blocks)}
