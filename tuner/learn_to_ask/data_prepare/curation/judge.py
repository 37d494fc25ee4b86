"""Asks an engine whether sessions teach, by a rubric; what it says is kept in a file of its own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.grading import parse_score
from tuner.learn_to_ask.core.records import Judgement, Session
from tuner.learn_to_ask.engines.base import Request, Sampling
from tuner.learn_to_ask.engines.job import JobSettings, is_complete, open_job
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.journal import file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl
from tuner.learn_to_ask.prompt import judge_prompt, judging_messages

JUDGE_SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_tokens=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """What the judge takes from the command line.

    Attributes:
        job: Of its engine.
        judgements_file: Gets what it says, one `Judgement` a session.
        least: A session with a lower score is dropped, in [0, 1].
        domain: Its prompt.
        sampling: Of its engine.
    """

    job: JobSettings
    judgements_file: Path
    least: float
    domain: Domain
    sampling: Sampling = JUDGE_SAMPLING


def judge_sessions(sessions: Iterable[Session], *, input_file: Path, rules: str, settings: JudgeSettings) -> int:
    """Writes a `Judgement` for each session; with `--resume`, a finished file is kept.

    Args:
        sessions: That passed all rules, always the same ones for the same input and flags.
        input_file: Where they come from.
        rules: What decided that they pass, as text: an unfinished run of others is not continued.
        settings: Of the judge.

    Returns:
        The exit code: 1 when more than the allowed share got no readable answer.
    """
    if is_complete(settings.judgements_file, "--judgements", settings.job):
        return 0
    waiting: dict[int, str] = {}
    count = asked = 0
    depends_on = {
        "input": file_digest(input_file),
        "rules": text_digest(rules),
        "sampling": str(settings.sampling),
        "prompt": text_digest(judge_prompt(settings.domain)),
    }
    with open_job(settings.judgements_file, settings.job, depends_on=depends_on) as job:

        def requests() -> Iterator[Request]:
            nonlocal count, asked
            for session in sessions:
                index, count = count, count + 1
                if not job.journal.done(index):
                    if not job.stopped:
                        waiting[index] = session.session_id
                    asked += 1
                    yield Request(index, judging_messages(session.messages, settings.domain))

        for answer in job.ask(requests(), sampling=settings.sampling, parse=_read):
            score, think = answer.value or (None, "")
            judgement = Judgement(session_id=waiting.pop(answer.key), score=score, think=think)
            job.journal.append(answer.key, judgement, failed=score is None)
        job.check_not_all_failed(of=asked)
        job.journal.finish(count, Judgement)
    job.print_summary(f"judged: {settings.judgements_file}", [("sessions", count)], role="judge")
    return job.exit_code(failed=job.journal.failed, of=count)


def read_judgements(file: Path) -> dict[str, float | None]:
    """Session -> its score, `None` where the judge gave no readable answer.

    Raises:
        UserError: For a line that is no judgement.
    """
    judgements = read_jsonl(file, Judgement, unique_key="session_id", report=ReadReport(), strict=True)
    return {judgement.session_id: judgement.score for judgement in judgements}


def score_of(scores: dict[str, float | None], session_id: str, *, file: Path) -> float | None:
    """The score of one session.

    Raises:
        UserError: When the judgements are those of other sessions.
    """
    if session_id not in scores:
        raise UserError(f"--judgements {file}: says nothing of session {session_id}; pass --overwrite to judge again")
    return scores[session_id]


def _read(texts: list[str]) -> tuple[float, str] | None:
    """Score and reasoning of a reply."""
    return parse_score(texts[0], name="teaches")
