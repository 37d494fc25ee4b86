"""One run over an engine: requests go out, answers go into a journal, a summary tells what came of it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary
from tuner.learn_to_ask.engines.base import Engine, Request, Sampling
from tuner.learn_to_ask.engines.budget import Meter
from tuner.learn_to_ask.engines.prices import Prices
from tuner.learn_to_ask.engines.retrying import Answer, Usage, ValueT, ask
from tuner.learn_to_ask.errors import BudgetReachedError, UserError
from tuner.learn_to_ask.journal import Journal
from tuner.learn_to_ask.jsonl import ReadReport


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What every job takes from its command line.

    Attributes:
        make_engine: Loads the engine, called when the files have been checked and there is work for it.
        prices: Of the engine, for the cost in the summary.
        meter: Of the engine, where the run has a budget.
        max_retries: Fresh tries after an answer that cannot be used; then it counts as failed.
        max_failures: Share of failures that is still a success.
        max_bad_lines: Share of the input's lines that may be unusable and still be a success.
        resume: Continue an unfinished run; keep a finished one.
        overwrite: Replace finished output, drop an unfinished run.
    """

    make_engine: Callable[[], Engine]
    prices: Prices | None = None
    meter: Meter | None = None
    max_retries: int
    max_failures: float
    max_bad_lines: float = 0.01
    resume: bool
    overwrite: bool


@dataclass(frozen=True, slots=True)
class Left:
    """What a stopped run has still to do.

    Attributes:
        said: In words.
        requests: How many requests it takes, as far as that is known.
        beside: What another engine was asked along with them, and its prices.
    """

    said: str
    requests: float
    beside: tuple[Usage, Prices | None] | None = None


@dataclass(slots=True, kw_only=True)
class Job:
    """An output file on its way.

    Attributes:
        settings: Of the command line.
        engine: Answers.
        journal: Keeps what is finished.
        usage: Counts what was asked for.
        started: `time.monotonic()` when it began.
        stopped: The budget is reached: requests that still come are only counted.
        left: How many those are.
    """

    settings: JobSettings
    engine: Engine
    journal: Journal
    usage: Usage = field(default_factory=Usage)
    started: float
    stopped: bool = False
    left: float = 0

    def ask(
        self, requests: Iterable[Request], *, sampling: Sampling, parse: Callable[[list[str]], ValueT | None]
    ) -> Iterator[Answer[ValueT]]:
        """Yields one parsed answer for each request, as they finish, see `retrying.ask`.

        Raises:
            BudgetReachedError: As `retrying.ask` does; the requests that are left have been counted by then.
            UserError: When a budget cannot be kept, because nothing limits how long an answer gets.
        """
        meter, tries = self.settings.meter, 1 + self.settings.max_retries
        if meter and self.engine.applied(sampling)["max_tokens"] is None:
            raise UserError(
                f"{meter.budget.said()}: the requests have no max_tokens, so that an answer may cost anything"
            )
        source, pulled, answered = iter(requests), 0, 0

        def counted() -> Iterator[Request]:
            nonlocal pulled
            for request in source:
                pulled += 1
                yield request

        try:
            for answer in ask(
                self.engine,
                counted(),
                sampling=sampling,
                parse=parse,
                max_tries=tries,
                usage=self.usage,
                meter=meter,
            ):
                answered += 1
                yield answer
        except BudgetReachedError:
            self.stopped = True
            self.left = pulled - answered + sum(1 for _ in source)
            raise

    def print_summary(
        self, title: str, rows: Iterable[tuple[str, object]], *, role: str, last: Iterable[tuple[str, object]] = ()
    ) -> None:
        """Prints what came of it: the job's own rows, what was resumed, what the engine did and who it was.

        Args:
            title: What was done.
            rows: Label and value of what only this job counts.
            role: Of the engine in the pipeline.
            last: Rows below it.
        """
        resumed = [("resumed", self.journal.resumed)] if self.journal.resumed else []
        asked = [*self.usage.rows(self.settings.prices), *self.engine.summary(), (role, self.engine.description)]
        print_summary(title, [*rows, *resumed, *asked, *last], started=self.started)

    def print_stopped(self, left: "Left | None") -> None:
        """Prints how far a run came on its budget, and what the rest would take by its average so far.

        Args:
            left: What is left, where that is more than the requests that were counted.
        """
        left = left or Left(f"{self.left:,.0f} requests", self.left)
        usage, prices = self.usage, self.settings.prices
        rows: list[tuple[str, object]] = [("results kept", self.journal.results), ("left", left.said)]
        if usage.answered:
            share = left.requests / usage.answered
            parts = [(usage, prices), *([left.beside] if left.beside else [])]
            tokens = sum(part.prompt_tokens + part.completion_tokens for part, _ in parts)
            charged = [price.cost(part.prompt_tokens, part.completion_tokens) for part, price in parts if price]
            usd = f", {share * sum(charged):.4f} USD" if charged else ""
            rows.append(("would take", f"about {share * tokens:,.0f} tokens{usd}, by this run's average"))
        rows += [*usage.rows(prices), *self.engine.summary(), ("engine", self.engine.description)]
        print_summary(f"stopped at the budget: {self.journal.output}", rows, started=self.started)

    def exit_code(self, *, failed: int, of: int, report: ReadReport | None = None) -> int:
        """1 when more failed, or more of the input was unusable, than is still a success, else 0."""
        if report and report.too_many_bad(self.settings.max_bad_lines):
            return EXIT_FAILURES
        return EXIT_FAILURES if failed > self.settings.max_failures * of else EXIT_DONE

    def check_not_all_failed(self, *, of: int) -> None:
        """Refuses to finish a run without a single answer; what it noted is dropped, so that another can begin.

        Args:
            of: How many requests this run has made.

        Raises:
            UserError: Naming the reasons.
        """
        if of and not self.usage.answered and not self.journal.resumed:
            self.journal.drop()
            raise UserError(f"{self.journal.output}: not written, no request was answered: {self.usage.reasons()}")


def is_complete(output: Path, flag: str, settings: JobSettings) -> bool:
    """Whether a finished output is kept; says so.

    Raises:
        UserError: When one is in the way, or its folder cannot be made.
    """
    if settings.resume and output.exists():
        print(f"{output}: already complete")
        return True
    check_output(output, flag, overwrite=settings.overwrite)
    return False


@contextmanager
def open_job(
    output: Path, settings: JobSettings, *, depends_on: Mapping[str, str], left: Callable[[], Left] | None = None
) -> Iterator[Job]:
    """Loads an engine and opens the journal of an output; both are closed in every case.

    Args:
        output: The file the job is going to write.
        settings: Of the command line.
        depends_on: What the results depend on besides the engine, name -> value.
        left: Called when the budget is reached: what is left, where that is more than the requests that `ask` counts.

    Raises:
        BudgetReachedError: From the block, after a summary of how far it came.
        UserError: When an unfinished run is in the way, see `Journal`.
    """
    started = time.monotonic()
    resume, overwrite = settings.resume, settings.overwrite
    Journal.check_unfinished(output, resume=resume, overwrite=overwrite)
    with closing(settings.make_engine()) as engine:
        fingerprint = {**depends_on, "engine": engine.description}
        with closing(Journal(output, fingerprint=fingerprint, resume=resume, overwrite=overwrite)) as journal:
            job = Job(settings=settings, engine=engine, journal=journal, started=started)
            try:
                yield job
            except BudgetReachedError:
                job.print_stopped(left() if left else None)
                raise
