"""What a run may spend: no request goes out once what is spent plus what is under way could exceed the budget."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tuner.learn_to_ask.engines.base import CUT_OFF, Reply, Request, Sampling
from tuner.learn_to_ask.engines.prices import Prices
from tuner.learn_to_ask.errors import BudgetReachedError, UserError

# A byte-level tokenizer makes no more tokens of a text than it has bytes; a chat template adds its marks.
_TEMPLATE_TOKENS = 64
_MESSAGE_TOKENS = 16
_MARGIN = 1.25  # on the most tokens a byte that replies have shown
_BYTES_A_TOKEN = 3.0  # of text whose tokens nobody reports; English has about 4, Chinese 4 to 5
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens and what they cost in USD."""

    tokens: float = 0.0
    usd: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.usd - other.usd)


class Budget:
    """What one run may spend, all of its engines together; they may work in threads of their own.

    Attributes:
        max_usd: The most it may cost, `None` for no limit.
        max_tokens: The most tokens, prompts and answers together, `None` for no limit.
        spent: So far.
    """

    def __init__(self, *, max_usd: float | None = None, max_tokens: int | None = None) -> None:
        self.max_usd = max_usd
        self.max_tokens = max_tokens
        self.spent = Amount()
        self._held: list[Amount] = []
        self._changed = threading.Condition()

    @property
    def under_way(self) -> Amount:
        """The most that the requests under way can take."""
        return sum(self._held, Amount())

    def take(self, most: Amount) -> bool:
        """Reserves the most that a request can take; False, and nothing reserved, where that could be too much."""
        with self._changed:
            if not self._fits(most):
                return False
            self._held.append(most)
            return True

    def settle(self, most: Amount, cost: Amount) -> None:
        """Exchanges what `take` reserved for what it came to."""
        with self._changed:
            self._held.remove(most)
            self.spent += cost
            self._changed.notify_all()

    def wait_for(self, most: Amount) -> bool:
        """Waits while requests are under way that may take less than reserved; whether a request then fits."""
        with self._changed:
            while not self._fits(most) and self._held:
                self._changed.wait(_LOOK_SECONDS)
            return self._fits(most)

    def said(self) -> str:
        """The limits as the flags that set them."""
        limits = [f"--max_usd {self.max_usd:g}"] if self.max_usd is not None else []
        limits += [f"--max_tokens_total {self.max_tokens}"] if self.max_tokens is not None else []
        return ", ".join(limits)

    def _fits(self, most: Amount) -> bool:
        """Whether spent, under way and this stay within the limits."""
        total = self.spent + self.under_way + most
        return (self.max_usd is None or total.usd <= self.max_usd) and (
            self.max_tokens is None or total.tokens <= self.max_tokens
        )


@dataclass(slots=True, kw_only=True)
class Meter:
    """One engine's share of a budget: bounds each request before it goes out, counts each reply.

    Attributes:
        budget: Of the run.
        prices: Of the engine, `None` where it costs nothing.
        unseen_bytes: Of each prompt beyond the request's messages.
    """

    budget: Budget
    prices: Prices | None = None
    unseen_bytes: int = 0
    _held: dict[int, tuple[Amount, int]] = field(default_factory=dict)
    _most_a_byte: float = 0.0

    def with_prompt(self, prompt: str) -> "Meter":
        """A meter for requests to which a system prompt is added on the way."""
        return replace(self, unseen_bytes=len(prompt.encode()), _held={})

    def take(self, request: Request, sampling: Sampling) -> bool:
        """Whether the request may go out; the most that it can take is reserved then."""
        most = self._most(request, sampling)
        if not self.budget.take(most):
            return False
        self._held[request.key] = (most, self._bytes(request))
        return True

    def wait_for(self, request: Request, sampling: Sampling) -> None:
        """Waits until a request fits that did not.

        Raises:
            BudgetReachedError: When it never will.
            UserError: When it would have been the first: the budget is less than one request.
        """
        most = self._most(request, sampling)
        if self.budget.wait_for(most):
            return
        if not self.budget.spent.tokens:
            price = f", {most.usd:.6f} USD" if self.prices else ""
            raise UserError(
                f"{self.budget.said()}: less than the first request may take: {most.tokens:.0f} tokens{price}, "
                f"{sampling.n * sampling.max_tokens} of them for its answer; raise the budget, or lower that"
            )
        spent = self.budget.spent
        usd = f", {spent.usd:.4f} USD" if self.budget.max_usd is not None else ""
        raise BudgetReachedError(
            f"{self.budget.said()}: reached, {spent.tokens:,.0f} tokens{usd} spent in this run; finished results are "
            "kept, --resume goes on with a budget of its own"
        )

    def settle(self, reply: Reply, sampling: Sampling) -> tuple[int, int, bool]:
        """Counts what a reply came to.

        Returns:
            Its tokens in and out, and whether they had to be estimated because nobody reports them.
        """
        most, prompt_bytes = self._held.pop(reply.key)
        tokens_in, tokens_out = reply.prompt_tokens, reply.completion_tokens
        if tokens_in and prompt_bytes:
            self._most_a_byte = max(self._most_a_byte, tokens_in / prompt_bytes)
        said = sum(len(text.encode()) for text in reply.texts)
        cut_off = reply.error.startswith(CUT_OFF)
        estimated = bool(said or cut_off) and not (tokens_in and tokens_out)
        if estimated:
            tokens_in = tokens_in or round(prompt_bytes * (self._most_a_byte or 1 / _BYTES_A_TOKEN))
            tokens_out = tokens_out or (sampling.n * sampling.max_tokens if cut_off else round(said / _BYTES_A_TOKEN))
        self.budget.settle(most, self._amount(tokens_in, tokens_out))
        return tokens_in, tokens_out, estimated

    def give_back(self) -> None:
        """Frees what is reserved for requests that nobody waits for any more."""
        for most, _ in self._held.values():
            self.budget.settle(most, Amount())
        self._held.clear()

    def _most(self, request: Request, sampling: Sampling) -> Amount:
        """The most that a request can take: servers may read the prompt again for each of its answers."""
        size = self._bytes(request)
        bound = sampling.n * (size + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(request.messages))
        prompt = min(bound, size * self._most_a_byte * _MARGIN + _TEMPLATE_TOKENS) if self._most_a_byte else bound
        return self._amount(prompt, sampling.n * sampling.max_tokens)

    def _amount(self, tokens_in: float, tokens_out: float) -> Amount:
        """Tokens with their price."""
        return Amount(tokens_in + tokens_out, self.prices.cost(tokens_in, tokens_out) if self.prices else 0.0)

    def _bytes(self, request: Request) -> int:
        """The size of a prompt in UTF-8."""
        return self.unseen_bytes + _size(message["content"] for message in request.messages)


def tokens_of(
    messages: list[dict[str, str]], texts: list[str], prompt_tokens: int, completion_tokens: int
) -> tuple[int, int, bool]:
    """Tokens of a prompt and its answers as they were told, and estimated where they are 0; whether any had to be."""
    if prompt_tokens and completion_tokens:
        return prompt_tokens, completion_tokens, False
    read, said = _size(message["content"] for message in messages), _size(texts)
    return (
        prompt_tokens or round(read / _BYTES_A_TOKEN),
        completion_tokens or round(said / _BYTES_A_TOKEN),
        True,
    )


def _size(texts: Iterable[str]) -> int:
    """Bytes of texts in UTF-8; lone surrogates are sent as one character too."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts)
