"""Asks an engine until every answer parses or the tries are used up."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Generic, TypeVar

from tuner.learn_to_ask.core.responses import is_cut_off, well_formed
from tuner.learn_to_ask.engines.base import CUT_OFF, Engine, Reply, Request, Sampling
from tuner.learn_to_ask.engines.budget import Meter
from tuner.learn_to_ask.engines.prices import Prices

ValueT = TypeVar("ValueT")
_EXAMPLE_LENGTH = 100
UNFINISHED_REASONING = "cut off in its reasoning"


@dataclass
class Usage:
    """What a run asked for and got, for its summary.

    Attributes:
        answered: Requests whose answers parsed.
        retried: Answers that had to be asked for again.
        failed: Reason -> requests given up.
        examples: Reason -> the first answer that was given up for it.
        prompt_tokens: Tokens read, retries included.
        completion_tokens: Tokens written, retries included.
        estimated: Replies whose tokens nobody reported, counted by estimate.
    """

    answered: int = 0
    retried: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0

    def count(self, prompt_tokens: int, completion_tokens: int, estimated: bool = False) -> None:
        """Adds the tokens of a reply."""
        self.estimated += estimated
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def rows(self, prices: Prices | None = None) -> list[tuple[str, object]]:
        """Label and value of everything worth telling.

        Args:
            prices: Adds what the tokens cost.
        """
        rows: list[tuple[str, object]] = [("answered", self.answered), ("retried", self.retried)]
        for reason, count in sorted(self.failed.items()):
            rows.append((f"failed: {reason}", count))
            if reason in self.examples:
                rows.append(("  for example", _shortened(self.examples[reason])))
        if self.prompt_tokens or self.completion_tokens:
            said = f", estimated for {self.estimated:,} replies without a count" if self.estimated else ""
            rows.append(("tokens in / out", f"{self.prompt_tokens:,} / {self.completion_tokens:,}{said}"))
        if prices:
            source = f" USD ({prices.source})" if prices.source else ""
            rows.append(("cost", f"{prices.cost(self.prompt_tokens, self.completion_tokens):.4f}{source}"))
        return rows

    def reasons(self) -> str:
        """The most frequent reasons for failures on one line, each with an example."""
        said = []
        for reason, count in self.failed.most_common(3):
            example = self.examples.get(reason)
            said.append(f"{reason} ({count}{', for example ' + _shortened(example) if example else ''})")
        return "; ".join(said)


@dataclass(frozen=True, slots=True)
class Answer(Generic[ValueT]):
    """The parsed answer to one request; `value` is `None` when all tries failed."""

    key: int
    value: ValueT | None


def ask(
    engine: Engine,
    requests: Iterable[Request],
    *,
    sampling: Sampling,
    parse: Callable[[list[str]], ValueT | None],
    max_tries: int,
    usage: Usage,
    meter: Meter | None = None,
) -> Iterator[Answer[ValueT]]:
    """Yields one parsed answer for each request, as they finish.

    Answers that do not parse go back to the engine for fresh sampling, ahead of new requests, so that
    nothing waits for the end of the run. Whole answers of a request of which others were cut off are kept.

    A request that could exceed the budget is not sent: first everything under way is answered, which may have taken
    less than it could. One long function, because requests and replies share what is under way.

    Args:
        engine: Answers.
        requests: Pulled lazily; their keys must differ.
        sampling: Passed on.
        parse: Makes a value of the texts of a reply, or `None` to have it tried again.
        max_tries: How often each request is sent at most.
        usage: Counts what happens.
        meter: Of the engine, where the run has a budget.

    Raises:
        BudgetReachedError: When the next request could exceed the budget; all that was under way is answered.
        UserError: When that is so for the first.
    """
    tries: dict[int, tuple[Request, int]] = {}
    kept: dict[int, list[str]] = {}
    again: deque[Request] = deque()
    fresh = iter(requests)

    def pending() -> Iterator[Request]:
        while (request := again.popleft() if again else next(fresh, None)) is not None:
            tries.setdefault(request.key, (request, 1))
            if meter and not meter.take(request, sampling):
                again.appendleft(request)
                return
            yield request

    more = True
    try:
        while more:
            if meter and again:
                meter.wait_for(again[0], sampling)
            for reply in engine.generate(pending(), sampling):
                request, tried = tries[reply.key]
                usage.count(*meter.settle(reply, sampling) if meter else (reply.prompt_tokens, reply.completion_tokens))
                whole, error = _whole_answers(reply)
                texts = [*kept.pop(reply.key, ()), *whole]
                value = None if len(texts) < sampling.n else parse(texts[: sampling.n])
                if value is not None:
                    usage.answered += 1
                elif tried < max_tries and not reply.final:
                    usage.retried += 1
                    tries[reply.key] = (request, tried + 1)
                    again.append(request)
                    if error:
                        kept[reply.key] = texts
                    continue
                else:
                    reason = error or "unreadable answer"
                    usage.failed[reason] += 1
                    if reply.texts:
                        usage.examples.setdefault(reason, well_formed(reply.texts[-1]))
                del tries[reply.key]
                yield Answer(reply.key, value)
            more = bool(again)  # what failed after the engine had taken the last request, or waits for its money
    finally:
        if meter:
            meter.give_back()


def _whole_answers(reply: Reply) -> tuple[list[str], str]:
    """The answers of a reply that came to their end, and why there are not more."""
    ended = [text for text, cut in zip_longest(reply.texts, reply.cut_off, fillvalue=False) if not cut]
    whole = [well_formed(str(text)) for text in ended if not is_cut_off(str(text))]
    unfinished = CUT_OFF if any(reply.cut_off) else UNFINISHED_REASONING if len(whole) < len(ended) else ""
    return whole, reply.error or unfinished


def _shortened(text: str) -> str:
    """An answer on one line of a summary, escaped."""
    return repr(text if len(text) <= _EXAMPLE_LENGTH else f"{text[:_EXAMPLE_LENGTH]}…")
