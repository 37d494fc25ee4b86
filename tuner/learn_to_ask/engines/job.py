"""One run over an engine: requests go out, answers go into a journal, a summary tells what came of it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary
from tuner.learn_to_ask.engines.base import Engine, Request, Sampling
from tuner.learn_to_ask.engines.retrying import Answer, Prices, Usage, ValueT, ask
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import Journal
from tuner.learn_to_ask.jsonl import ReadReport


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What every job takes from its command line.

    Attributes:
        make_engine: Loads the engine, called when the files have been checked and there is work for it.
        prices: Of the engine, for the cost in the summary.
        max_retries: Fresh tries after an answer that cannot be used; then it counts as failed.
        max_failures: Share of failures that is still a success.
        max_bad_lines: Share of the input's lines that may be unusable and still be a success.
        resume: Continue an unfinished run; keep a finished one.
        overwrite: Replace finished output, drop an unfinished run.
    """

    make_engine: Callable[[], Engine]
    prices: Prices | None = None
    max_retries: int
    max_failures: float
    max_bad_lines: float = 0.01
    resume: bool
    overwrite: bool


@dataclass(slots=True, kw_only=True)
class Job:
    """An output file on its way.

    Attributes:
        settings: Of the command line.
        engine: Answers.
        journal: Keeps what is finished.
        usage: Counts what was asked for.
        started: `time.monotonic()` when it began.
    """

    settings: JobSettings
    engine: Engine
    journal: Journal
    usage: Usage = field(default_factory=Usage)
    started: float

    def ask(
        self, requests: Iterable[Request], *, sampling: Sampling, parse: Callable[[list[str]], ValueT | None]
    ) -> Iterator[Answer[ValueT]]:
        """Yields one parsed answer for each request, as they finish, see `retrying.ask`."""
        tries = 1 + self.settings.max_retries
        return ask(self.engine, requests, sampling=sampling, parse=parse, max_tries=tries, usage=self.usage)

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
def open_job(output: Path, settings: JobSettings, *, depends_on: Mapping[str, str]) -> Iterator[Job]:
    """Loads an engine and opens the journal of an output; both are closed in every case.

    Args:
        output: The file the job is going to write.
        settings: Of the command line.
        depends_on: What the results depend on besides the engine, name -> value.

    Raises:
        UserError: When an unfinished run is in the way, see `Journal`.
    """
    started = time.monotonic()
    resume, overwrite = settings.resume, settings.overwrite
    Journal.check_unfinished(output, resume=resume, overwrite=overwrite)
    with closing(settings.make_engine()) as engine:
        fingerprint = {**depends_on, "engine": engine.description}
        with closing(Journal(output, fingerprint=fingerprint, resume=resume, overwrite=overwrite)) as journal:
            yield Job(settings=settings, engine=engine, journal=journal, started=started)
