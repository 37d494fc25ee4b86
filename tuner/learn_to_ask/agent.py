"""The ReAct agent that answers a task: one for training and evaluation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.learn_to_ask.core.records import Message
from tuner.learn_to_ask.core.reward import TrainMode
from tuner.learn_to_ask.prompt import rollout_prompt

if TYPE_CHECKING:
    from agentscope.model import ChatModelBase

AGENT_NAME = "doctor"


async def react_reply(messages: Sequence[Message], model: "ChatModelBase", train_mode: TrainMode) -> str:
    """Lets a ReAct agent without tools or memory of other tasks reply once; it asks its model once.

    Args:
        messages: The context.
        model: The policy; how it samples is its own business.
        train_mode: Picks the system prompt.

    Returns:
        The reply as the model gave it, `""` when it said nothing.
    """
    from agentscope.agent import ReActAgent
    from agentscope.formatter import OpenAIChatFormatter
    from agentscope.memory import InMemoryMemory
    from agentscope.message import Msg

    agent = ReActAgent(
        name=AGENT_NAME,
        sys_prompt=rollout_prompt(train_mode),
        model=model,
        formatter=OpenAIChatFormatter(),
        memory=InMemoryMemory(),
        max_iters=1,
    )
    agent.set_console_output_enabled(False)
    reply = await agent.reply(
        [Msg(name=message["role"], content=message["content"], role=message["role"]) for message in messages]
    )
    return reply.get_text_content() or ""
