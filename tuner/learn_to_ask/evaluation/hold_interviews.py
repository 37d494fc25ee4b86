"""Lets a policy hold whole interviews with the users of logged sessions, many at a time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tuner.learn_to_ask.cli import EXIT_DONE, progress
from tuner.learn_to_ask.core.domain import Domain, stop_token_in_log
from tuner.learn_to_ask.core.records import Course, Interview, Message, Sample, SamplingValues, Turn
from tuner.learn_to_ask.core.responses import strip_reasoning
from tuner.learn_to_ask.core.reward import TrainMode
from tuner.learn_to_ask.engines.base import Request, Sampling, as_asked, not_applied
from tuner.learn_to_ask.engines.job import Job, JobSettings, is_complete, open_job
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.patient import (
    RULES,
    Patient,
    answer,
    is_first_of_session,
    items_of,
    logged_course,
    make_patient,
)
from tuner.learn_to_ask.evaluation.roll_out import RolloutMode, conversation, of_mode
from tuner.learn_to_ask.journal import file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, require_input
from tuner.learn_to_ask.prompt import rollout_prompt

TRAIN_MODE: TrainMode = "Ra+Rs"  # the prompt that says when to stop


def hold_interviews(
    *,
    test_file: Path,
    output_file: Path,
    settings: JobSettings,
    sampling: Sampling,
    domain: Domain,
    rollout_mode: RolloutMode = "direct",
    max_turns: int,
    strict: bool,
) -> int:
    """Writes one interview for every session of a file of samples; one in which the policy fails is left out.

    Args:
        test_file: Samples of step A, with their `info_set`.
        output_file: `Interview`, in the order of the sessions, once all are done; kept if complete on resume.
        settings: Of the policy.
        sampling: How to sample, with `n` 1.
        domain: Its texts and its stop token.
        rollout_mode: Whether the policy answers itself or as the model of the agent that is trained.
        max_turns: After how many questions an interview is broken off, at least 1.
        strict: A bad line is an error instead of skipped.

    Returns:
        The exit code.

    Raises:
        UserError: When the samples or what lies at the outputs cannot be used, or every interview failed.
    """
    require_input(test_file, "--test_file_path")
    if is_complete(output_file, "--output_file", settings):
        return EXIT_DONE
    report, left_out = ReadReport(), Counter[str]()
    samples = _usable(test_file, domain, report, left_out, strict=strict)
    depends_on = {
        "input": file_digest(test_file),
        "sampling": str(sampling),
        "prompt": text_digest(rollout_prompt(TRAIN_MODE, domain)),
        "rollout_mode": rollout_mode,
        "max_turns": str(max_turns),
        "user": f"{RULES}, else {domain.unknown_answer!r}",
    }
    settings = of_mode(settings, rollout_mode, TRAIN_MODE, domain)
    with open_job(output_file, settings, depends_on=depends_on) as job:
        under_way = {
            index: _UnderWay(sample, make_patient(sample, domain), max_turns)
            for index, sample in enumerate(samples)
            if not job.journal.done(index)
        }
        ended = _rounds(job, under_way, sampling, rollout_mode, domain)
        for index, one in progress(ended, title="interviewing", total=len(under_way), unit="interviews"):
            job.journal.append(index, _record(one, job, sampling, domain))
        failed = job.usage.failed.total()
        if failed == len(samples):
            job.journal.drop()
            raise UserError(f"{output_file}: not written, every interview failed: {job.usage.reasons()}")
        written = job.journal.finish(len(samples))
        changed = not_applied(sampling, job.engine.applied(sampling))
    rows = [
        ("interviews", written),
        *((f"left out: {why}", sessions) for why, sessions in sorted(left_out.items())),
        *report.skipped_rows,
        ("rollout mode", rollout_mode),
        *([("not applied", changed)] if changed else []),
    ]
    job.print_summary(f"interviewed: {output_file}", rows, role="policy")
    return job.exit_code(failed=failed, of=len(samples), report=report)


@dataclass(slots=True)
class _UnderWay:
    """An interview that is not over, or just is.

    Attributes:
        sample: The first of the session.
        patient: Who is asked.
        max_turns: When it is broken off.
        turns: So far.
        known: Facts that came to light.
        end: The message that stopped it.
    """

    sample: Sample
    patient: Patient
    max_turns: int
    turns: list[Turn] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    end: str | None = None

    def messages(self) -> list[Message]:
        """The dialogue so far, without turns in which the policy said nothing: servers refuse empty messages."""
        told: list[Message] = list(self.patient.opening)
        for turn in self.turns:
            if turn.question.strip():
                told.append({"role": "assistant", "content": turn.question})
                told.append({"role": "user", "content": turn.answer})
        return told

    def take(self, said: str, stop_token: str) -> bool:
        """Goes on with what the policy said; whether the interview is over."""
        if stop_token in said:
            self.end = said
            return True
        self.turns.append(answer(self.patient, said, self.known))
        self.known.update(self.turns[-1].facts)
        return len(self.turns) == self.max_turns


def _rounds(
    job: Job, under_way: dict[int, _UnderWay], sampling: Sampling, rollout_mode: RolloutMode, domain: Domain
) -> Iterator[tuple[int, _UnderWay]]:
    """Asks for the next message of every interview that is open, until none is; yields them as they end."""

    def requests() -> Iterator[Request]:
        for index, one in list(under_way.items()):
            yield Request(index, conversation(one.messages(), TRAIN_MODE, rollout_mode, domain))

    while under_way:
        for reply in job.ask(requests(), sampling=sampling, parse=lambda texts: strip_reasoning(texts[0])):
            if reply.value is None:
                del under_way[reply.key]
            elif under_way[reply.key].take(reply.value, domain.stop_token):
                yield reply.key, under_way.pop(reply.key)


def _record(one: _UnderWay, job: Job, sampling: Sampling, domain: Domain) -> Interview:
    """A finished interview as a line of the output."""
    return Interview(
        session_id=one.sample.session_id,
        diagn=one.sample.diagn,
        messages=one.sample.messages,
        facts=list(one.patient.facts),
        max_turns=one.max_turns,
        held=Course(turns=one.turns, end=one.end),
        logged=logged_course(one.patient, one.sample.remaining_chat),
        policy=job.engine.description,
        user=RULES,
        sampling=SamplingValues.model_validate(as_asked(sampling)),
        sampling_applied=SamplingValues.model_validate(job.engine.applied(sampling)),
        domain=domain.of_record,
    )


def _usable(
    test_file: Path, domain: Domain, report: ReadReport, left_out: Counter[str], *, strict: bool
) -> list[Sample]:
    """The first sample of every session that holds facts; counts why others are left out.

    Raises:
        UserError: When none is left, or a log holds the stop token.
    """
    first: dict[str, Sample] = {}
    samples = read_jsonl(test_file, Sample, unique_key="cid", report=report, strict=strict)
    for sample in progress(samples, title="reading", total=count_lines(test_file), unit="samples"):
        before = first.get(sample.session_id)
        if before is None or len(sample.messages) < len(before.messages):
            first[sample.session_id] = sample
    usable = []
    for sample in first.values():
        if domain.stops_in(sample.messages) or domain.stops_in(sample.remaining_chat):
            raise UserError(f"--test_file_path {test_file}: cid {sample.cid!r}: {stop_token_in_log(domain)}")
        if why := _why_left_out(sample):
            left_out[why] += 1
        else:
            usable.append(sample)
    if not usable:
        why = ", ".join(f"{reason} ({sessions})" for reason, sessions in sorted(left_out.items()))
        wanted = why or "one JSON object a line is wanted, a sample of 1_info_extract_pipeline.py"
        raise UserError(f"--test_file_path {test_file}: holds no session that can be asked: {wanted}")
    return usable


def _why_left_out(sample: Sample) -> str:
    """Why a session cannot be asked, `""` when it can."""
    if not is_first_of_session(sample):
        return "its first sample is missing"
    if sample.info_set is None:
        return "its extraction failed"
    return "" if items_of(sample) else "without facts"
