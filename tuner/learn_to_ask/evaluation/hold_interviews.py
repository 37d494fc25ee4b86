"""Lets a policy hold whole interviews with the users of logged sessions, many at a time."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuner.learn_to_ask.cli import EXIT_DONE, progress
from tuner.learn_to_ask.core.domain import Domain
from tuner.learn_to_ask.core.records import Course, Interview, Message, Sample, SamplingValues, Turn
from tuner.learn_to_ask.core.responses import strip_reasoning
from tuner.learn_to_ask.core.reward import TrainMode
from tuner.learn_to_ask.engines.base import Request, Sampling, as_asked, not_applied
from tuner.learn_to_ask.engines.job import Job, JobSettings, Left, is_complete, open_job
from tuner.learn_to_ask.engines.retrying import Usage
from tuner.learn_to_ask.errors import BudgetReachedError, UserError
from tuner.learn_to_ask.evaluation.answering import RULES, Answers, Asked, ByModel, by_rules
from tuner.learn_to_ask.evaluation.interview_samples import askable_samples
from tuner.learn_to_ask.evaluation.patient import Patient, logged_messages, make_patient
from tuner.learn_to_ask.evaluation.roll_out import RolloutMode, conversation, of_mode
from tuner.learn_to_ask.journal import Journal, file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, require_input
from tuner.learn_to_ask.prompt import choosing_prompt, rollout_prompt
from tuner.learn_to_ask.shards import Shard, check_same_shard, note_shard

TRAIN_MODE: TrainMode = "Ra+Rs"  # the prompt that says when to stop
MAX_TURNS = 12


def hold_interviews(
    *,
    test_file: Path,
    output_file: Path,
    settings: JobSettings,
    sampling: Sampling,
    domain: Domain,
    rollout_mode: RolloutMode = "direct",
    max_turns: int,
    user: JobSettings | None = None,
    shard: Shard | None = None,
    strict: bool,
    test_flag: str = "--test_file_path",
    output_flag: str = "--output_file",
) -> int:
    """Writes one interview for every session of a file of samples; one in which an engine fails is left out.

    One long function, because the engines are open for all of it.

    Args:
        test_file: Samples of step A, with their `info_set`.
        output_file: `Interview`, in the order of the sessions, once all are done; kept if complete on resume.
        settings: Of the policy.
        sampling: How to sample, with `n` 1.
        domain: Its texts and its stop token.
        rollout_mode: Whether the policy answers itself or as the model of the agent that is trained.
        max_turns: After how many questions an interview is broken off, at least 1.
        user: Of the model that answers as the users; `None` for rules.
        shard: Of the sessions; all without.
        strict: A bad line is an error instead of skipped.
        test_flag: Names `test_file` in messages.
        output_flag: Names `output_file` in messages.

    Returns:
        The exit code.

    Raises:
        BudgetReachedError: When the next answer could cost too much; every interview is kept as far as it came.
        UserError: When the samples or what lies at the outputs cannot be used, or every interview failed.
    """
    require_input(test_file, test_flag)
    if settings.resume:
        check_same_shard(output_file, output_flag, shard)
    if is_complete(output_file, output_flag, settings):
        return EXIT_DONE
    Journal.check_unfinished(output_file, resume=settings.resume, overwrite=settings.overwrite)
    report, left_out = ReadReport(), Counter[str]()
    place = f"{test_flag} {test_file}"
    samples = askable_samples(
        test_file, domain, place=place, shard=shard, report=report, left_out=left_out, strict=strict
    )
    with _answering(user) as (answers, who, usage):
        depends_on = {
            "input": file_digest(test_file),
            "sampling": str(sampling),
            "prompt": text_digest(rollout_prompt(TRAIN_MODE, domain)),
            "rollout_mode": rollout_mode,
            "max_turns": str(max_turns),
            "user": who,
            "unknown_answer": domain.unknown_answer,
            **({"user_prompt": text_digest(choosing_prompt(domain))} if user else {}),
            **(shard.setting if shard else {}),
        }
        settings = of_mode(settings, rollout_mode, TRAIN_MODE, domain)
        under_way: dict[int, _UnderWay] = {}

        def left() -> Left:
            turns = sum(max_turns - len(one.held.turns) for one in under_way.values() if one.policy_is_next)
            said = f"{len(under_way):,} of {len(samples):,} interviews, at most {turns:,} answers"
            return Left(said, turns, beside=(usage, user.prices) if user else None)

        with open_job(output_file, settings, depends_on=depends_on, left=left) as job:
            for index, sample in enumerate(samples):
                one = _UnderWay.of(sample, domain, max_turns)
                if job.journal.done(index):
                    one.take_up(job.journal.record(index))
                if not one.over:
                    under_way[index] = one
                    job.journal.forget(index)
            failed = len(under_way)
            talk = partial(conversation, train_mode=TRAIN_MODE, rollout_mode=rollout_mode, domain=domain)
            ended = _rounds(job, under_way, sampling=sampling, talk=talk, answers=answers)
            try:
                for index, one in progress(ended, title="interviewing", total=failed, unit="interviews"):
                    job.journal.append(index, _record(one, job, sampling, who))
                    failed -= 1
            except BudgetReachedError:
                for index, one in under_way.items():
                    record = _record(one, job, sampling, who)
                    job.journal.append(index, record if one.over else one.unfinished(record))
                raise
            if samples and failed == len(samples):
                job.journal.drop()
                reasons = "; ".join(filter(None, (job.usage.reasons(), usage.reasons())))
                raise UserError(f"{output_file}: not written, every interview failed: {reasons}")
            not_held = left_out.total() + len(samples) - job.journal.results
            note_shard(job.journal, shard, Interview, left_out=not_held)
            written = job.journal.finish(len(samples), Interview)
            changed = not_applied(sampling, job.engine.applied(sampling))
    rows = [
        ("interviews", written),
        *([("shard", shard)] if shard else []),
        *((f"left out: {why}", sessions) for why, sessions in sorted(left_out.items())),
        *report.skipped_rows,
        ("rollout mode", rollout_mode),
        *([("not applied", changed)] if changed else []),
    ]
    of_user = [(f"user: {what}", value) for what, value in usage.rows(user.prices)] if user else []
    job.print_summary(f"interviewed: {output_file}", rows, role="policy", last=[*of_user, ("user", who)])
    return job.exit_code(failed=failed, of=len(samples), report=report)


@contextmanager
def _answering(user: JobSettings | None) -> Iterator[tuple[Answers, str, Usage]]:
    """What answers as the users, who that is, and what it was asked for; a model is freed in every case."""
    if user is None:
        yield by_rules, RULES, Usage()
        return
    with closing(user.make_engine()) as engine:
        model = ByModel(engine=engine, max_retries=user.max_retries, meter=user.meter)
        yield model, f"llm:{engine.description}", model.usage


class Unfinished(Interview):
    """An interview in the journal of a run that came to its budget.

    Attributes:
        unanswered: What the policy has asked and nobody has answered yet, `None` for nothing.
    """

    unanswered: str | None = None


@dataclass(slots=True, kw_only=True)
class _UnderWay:
    """An interview that is not over, or just is; the logged expert's is held beside the policy's.

    Attributes:
        sample: The first of the session.
        patient: Who is asked.
        max_turns: When the policy's is broken off.
        held: The policy's, so far.
        logged: The logged expert's, so far.
        script: What the logged expert says.
        unanswered: What the policy has asked and waits for an answer to.
    """

    sample: Sample
    patient: Patient
    max_turns: int
    held: Course
    logged: Course
    script: list[str]
    unanswered: str | None = None

    @classmethod
    def of(cls, sample: Sample, domain: Domain, max_turns: int) -> "_UnderWay":
        """Before the first question."""
        script, end = logged_messages(sample.remaining_chat, domain)
        return cls(
            sample=sample,
            patient=make_patient(sample, domain),
            max_turns=max_turns,
            held=Course(turns=[], end=None),
            logged=Course(turns=[], end=end),
            script=script,
        )

    def take_up(self, record: dict[str, Any]) -> None:
        """Goes on from where an earlier run has left it."""
        kept = Unfinished.model_validate(record)
        self.held, self.logged, self.unanswered = kept.held, kept.logged, kept.unanswered

    def unfinished(self, record: Interview) -> Unfinished:
        """What `take_up` goes on from."""
        return Unfinished(**record.model_dump(), unanswered=self.unanswered)

    @property
    def policy_is_next(self) -> bool:
        """Whether the policy's interview goes on."""
        return self.held.end is None and len(self.held.turns) < self.max_turns

    @property
    def expert_says(self) -> str | None:
        """The logged expert's next message, `None` after the last."""
        place = len(self.logged.turns)
        return self.script[place] if place < len(self.script) else None

    @property
    def over(self) -> bool:
        """Whether both came to their end."""
        return not self.policy_is_next and self.expert_says is None

    def messages(self) -> list[Message]:
        """The policy's dialogue so far, without turns in which it said nothing: servers refuse empty messages."""
        told: list[Message] = list(self.patient.opening)
        for turn in self.held.turns:
            if turn.question.strip():
                told.append({"role": "assistant", "content": turn.question})
                told.append({"role": "user", "content": turn.answer})
        return told

    def asked(self, key: int, course: Course, question: str) -> Asked:
        """A question in one of the two, ready to be answered."""
        known = frozenset(fact for turn in course.turns for fact in turn.facts)
        return Asked(key, self.patient, question, known)


def _rounds(
    job: Job,
    under_way: dict[int, _UnderWay],
    *,
    sampling: Sampling,
    talk: Callable[[list[Message]], list[dict[str, str]]],
    answers: Answers,
) -> Iterator[tuple[int, _UnderWay]]:
    """Asks for the next message in every open interview, and for its answer, until none is open.

    Args:
        job: With the policy's engine.
        under_way: Index -> interview; those in which an answer cannot be had are dropped.
        sampling: Of the policy.
        talk: Makes of a dialogue what the engine is asked.
        answers: Answers as the users.

    Yields:
        Those that came to their end.
    """

    def requests() -> Iterator[Request]:
        for index, one in list(under_way.items()):
            if one.policy_is_next and one.unanswered is None:
                yield Request(index, talk(one.messages()))

    while under_way:
        # Even keys are the policy's, odd ones the logged expert's.
        waiting = [
            one.asked(2 * index, one.held, one.unanswered)
            for index, one in under_way.items()
            if one.unanswered is not None
        ]
        for reply in job.ask(requests(), sampling=sampling, parse=lambda texts: strip_reasoning(texts[0])):
            one = under_way[reply.key]
            if reply.value is None:
                del under_way[reply.key]
            elif one.patient.domain.stop_token in reply.value:
                one.held.end = reply.value
                if one.over:  # not at the end of the round: what is finished survives a kill
                    yield reply.key, under_way.pop(reply.key)
            else:
                one.unanswered = reply.value
                waiting.append(one.asked(2 * reply.key, one.held, reply.value))
        for index, one in under_way.items():
            if (message := one.expert_says) is not None:
                waiting.append(one.asked(2 * index + 1, one.logged, message))
        _take(answers(waiting), under_way)
        for index in [index for index, one in under_way.items() if one.over]:
            yield index, under_way.pop(index)


def _take(answered: Iterable[tuple[int, Turn | None]], under_way: dict[int, _UnderWay]) -> None:
    """Adds turns to their interviews; drops those in which an answer cannot be had."""
    for key, turn in answered:
        index, of_expert = divmod(key, 2)
        if turn is None:
            under_way.pop(index, None)
        elif index in under_way:
            one = under_way[index]
            (one.logged if of_expert else one.held).turns.append(turn)
            if not of_expert:
                one.unanswered = None


def _record(one: _UnderWay, job: Job, sampling: Sampling, who: str) -> Interview:
    """A finished interview as a line of the output."""
    return Interview(
        session_id=one.sample.session_id,
        diagn=one.sample.diagn,
        messages=one.sample.messages,
        facts=list(one.patient.facts),
        max_turns=one.max_turns,
        held=one.held,
        logged=one.logged,
        policy=job.engine.description,
        user=who,
        sampling=SamplingValues.model_validate(as_asked(sampling)),
        sampling_applied=SamplingValues.model_validate(job.engine.applied(sampling)),
        domain=one.patient.domain.of_record,
    )
