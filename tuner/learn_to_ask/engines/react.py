"""The agent as an engine: each answer is the reply of a ReAct agent whose model is another engine."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from tuner.learn_to_ask.agent import plain_message, react_reply
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Message
from tuner.learn_to_ask.core.reward import TrainMode
from tuner.learn_to_ask.domains import default_domain
from tuner.learn_to_ask.engines.base import CUT_OFF, Applied, Engine, Reply, Request, Sampling

if TYPE_CHECKING:
    from agentscope.model import ChatModelBase, ChatResponse


class ReactEngine:
    """Answers dialogues with the agent that `main.py` trains.

    The agents wait on an event loop for their one answer. What they ask goes to the engine as requests of their own,
    pulled as it has room, so that it batches them as it does any others.
    """

    def __init__(self, engine: Engine, train_mode: TrainMode, domain: Domain | None = None) -> None:
        """Puts agents before an engine.

        Args:
            engine: Their model; closed with this one.
            train_mode: Picks the agents' system prompt.
            domain: Its texts; the medical one where none is given.
        """
        self.description = f"{engine.description} (ReAct agent)"
        self._engine = engine
        self._train_mode = train_mode
        self._domain = domain or default_domain()
        self._kept: dict[int, _Group] = {}  # what was answered of requests that have to be tried again

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yields the replies as they finish; requests hold the dialogue alone, the agents bring the system prompt.

        A request of which some answers failed keeps the others for when it is tried again.
        """
        loop = asyncio.new_event_loop()
        waiting: dict[int, tuple[_Group, _Agent]] = {}

        def questions() -> Iterator[Request]:
            asked = 0
            for request in requests:
                group = self._kept.pop(request.key, None) or _Group(request.key)
                group.pending = sampling.n - len(group.texts)
                for _ in range(group.pending):
                    agent = _Agent(loop, request.messages, self._train_mode, self._domain)
                    waiting[asked] = (group, agent)
                    asked += 1
                    yield Request(asked - 1, agent.question())

        try:
            for reply in self._engine.generate(questions(), replace(sampling, n=1)):
                group, agent = waiting.pop(reply.key)
                error = CUT_OFF if any(reply.cut_off) else reply.error
                group.take(reply, error, agent.give_up() if error else agent.reply_to(reply.texts[0]))
                if group.pending == 0:
                    if group.error:
                        self._kept[group.key] = _Group(group.key, group.texts)
                    yield group.reply()
        finally:
            for _, agent in waiting.values():
                agent.give_up()
            loop.close()

    def applied(self, sampling: Sampling) -> Applied:
        """What the engine applies."""
        return self._engine.applied(sampling)

    def summary(self) -> list[tuple[str, object]]:
        """What the engine has to tell."""
        return self._engine.summary()

    def close(self) -> None:
        """Closes the engine."""
        self._engine.close()


@dataclass
class _Group:
    """The answers to one request on their way."""

    key: int
    texts: list[str] = field(default_factory=list)
    pending: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    final: bool = False

    def take(self, reply: Reply, error: str, text: str) -> None:
        """Adds the answer of one agent."""
        self.pending -= 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        if error:
            self.error, self.final = error, self.final or reply.final
        else:
            self.texts.append(text)

    def reply(self) -> Reply:
        """All answers, or why there are not all."""
        texts = [] if self.error else self.texts
        return Reply(self.key, texts, self.prompt_tokens, self.completion_tokens, self.error, self.final)


class _Agent:
    """One agent, stopped where it waits for its model."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, messages: list[dict[str, str]], train_mode: TrainMode, domain: Domain
    ) -> None:
        self._loop = loop
        self._asked: asyncio.Future[list[dict[str, str]]] = loop.create_future()
        self._answered: asyncio.Future[str] = loop.create_future()
        model = _chat_model(self._asked, self._answered)
        self._task = loop.create_task(react_reply(cast("list[Message]", messages), model, train_mode, domain=domain))

    def question(self) -> list[dict[str, str]]:
        """Runs the agent until it asks its model."""
        first: set[asyncio.Future[Any]] = {self._task, self._asked}
        self._loop.run_until_complete(asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED))
        if self._task.done():
            self._task.result()  # an agent that never asks has failed
        return self._asked.result()

    def reply_to(self, answer: str) -> str:
        """Runs the agent to its end with the model's answer."""
        self._answered.set_result(answer)
        return self._loop.run_until_complete(self._task)

    def give_up(self) -> str:
        """Ends the agent without an answer."""
        self._task.cancel()
        self._loop.run_until_complete(asyncio.wait([self._task]))
        return ""


def _chat_model(asked: "asyncio.Future[list[dict[str, str]]]", answered: "asyncio.Future[str]") -> "ChatModelBase":
    """A chat model of AgentScope that passes one question on and waits for its answer."""
    from agentscope.message import TextBlock
    from agentscope.model import ChatModelBase, ChatResponse

    class OneAnswer(ChatModelBase):  # type: ignore[misc]  # its types are not followed
        async def __call__(self, prompt: list[dict[str, Any]], **_: Any) -> "ChatResponse":
            asked.set_result([plain_message(message) for message in prompt])  # fails when asked a second time
            return ChatResponse(content=[TextBlock(type="text", text=await answered)])

    return OneAnswer("engine", stream=False)
