"""The first half of step 3: rolls a policy out on the test set (spec section 8)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from tuner.learn_to_ask.cli import EXIT_DONE, progress
from tuner.learn_to_ask.core.domain import Domain, stop_token_in_log
from tuner.learn_to_ask.core.records import Message, SamplingValues, Task, TaskWithRollouts
from tuner.learn_to_ask.core.responses import strip_reasoning
from tuner.learn_to_ask.core.reward import TrainMode
from tuner.learn_to_ask.engines.base import Request, Sampling, as_asked, not_applied
from tuner.learn_to_ask.engines.job import JobSettings, Left, is_complete, open_job
from tuner.learn_to_ask.engines.react import ReactEngine
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.evaluation.overlap import Handover
from tuner.learn_to_ask.evaluation.rollout_files import count_tasks
from tuner.learn_to_ask.journal import file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, count_lines, read_jsonl, require_input
from tuner.learn_to_ask.prompt import rollout_messages, rollout_prompt
from tuner.learn_to_ask.shards import Shard, check_same_shard, in_shard, note_shard

ROLLOUT_SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=512, repetition_penalty=1.2)  # as published
TRAINED_SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=512)  # as training rolls out

RolloutMode = Literal["direct", "react"]
ROLLOUT_MODES: tuple[RolloutMode, ...] = get_args(RolloutMode)


def roll_out(
    *,
    test_file: Path,
    rollout_file: Path,
    settings: JobSettings,
    sampling: Sampling,
    train_mode: TrainMode,
    domain: Domain,
    rollout_mode: RolloutMode = "direct",
    shard: Shard | None = None,
    strict: bool,
    handover: Handover | None = None,
) -> int:
    """Writes `sampling.n` rollouts for every task of the test set; a task whose rollouts fail is left out.

    One long function, because requests and answers share what is under way.

    Args:
        test_file: Tasks.
        rollout_file: `TaskWithRollouts`, in input order, once all are done; kept if complete on resume.
        settings: Of the policy.
        sampling: How to sample.
        train_mode: Which system prompt the policy gets.
        domain: Its texts and its stop token.
        rollout_mode: Whether the policy answers itself or as the model of the agent that is trained.
        shard: Of the sessions; all without.
        strict: A bad line is an error instead of skipped.
        handover: Gets every task with rollouts as soon as it is on the disk, those of an earlier run included.

    Returns:
        The exit code.

    Raises:
        BudgetReachedError: When the rest would cost too much, also at the other end of the handover.
        StoppedError: When the grader at the other end of the handover has failed.
    """
    require_input(test_file, "--test_file_path")
    if settings.resume:
        check_same_shard(rollout_file, "--rollout_file_path", shard)
    if is_complete(rollout_file, "--rollout_file_path", settings):
        return EXIT_DONE
    report = ReadReport()
    waiting: dict[int, Task] = {}
    count = silent = tasks = 0
    total = count_lines(test_file) // (shard.of if shard else 1)
    depends_on = {
        "input": file_digest(test_file),
        "sampling": str(sampling),
        "prompt": text_digest(rollout_prompt(train_mode, domain)),
        "rollout_mode": rollout_mode,
        **(shard.setting if shard else {}),
    }
    settings = of_mode(settings, rollout_mode, train_mode, domain)

    def left() -> Left:
        return _left(count_tasks(test_file, shard), job.journal.results)

    with open_job(rollout_file, settings, depends_on=depends_on, left=left) as job:

        def requests() -> Iterator[Request]:
            nonlocal count, tasks
            for task in read_jsonl(test_file, Task, unique_key="cid", report=report, strict=strict):
                if handover and not handover.wants_more:
                    return
                if domain.stops_in(task.messages):
                    raise UserError(f"--test_file_path {test_file}: cid {task.cid!r}: {stop_token_in_log(domain)}")
                index, count = count, count + 1
                if not in_shard(task.session_id, shard):
                    continue
                tasks += 1
                if not job.journal.done(index):
                    if not job.stopped:
                        waiting[index] = task
                    yield Request(index, conversation(task.messages, train_mode, rollout_mode, domain))
                elif handover:
                    handover.put(index, TaskWithRollouts.model_validate(job.journal.record(index)))

        answers = job.ask(requests(), sampling=sampling, parse=lambda texts: [strip_reasoning(text) for text in texts])
        for answer in progress(answers, title="rolling out", total=total - job.journal.resumed, unit="samples"):
            task = waiting.pop(answer.key)
            if answer.value is not None:
                silent += sum(not rollout.strip() for rollout in answer.value)
                done = TaskWithRollouts(
                    **task.model_dump(),
                    rollouts=answer.value,
                    policy=job.engine.description,
                    sampling=SamplingValues.model_validate(as_asked(sampling)),
                    sampling_applied=SamplingValues.model_validate(job.engine.applied(sampling)),
                    domain=domain.of_record,
                )
                job.journal.append(answer.key, done)
                if handover:
                    handover.put(answer.key, done)
        if handover:
            handover.check()
        if not report.good:
            wanted = "one JSON object a line is wanted; the lines above say why"
            raise UserError(f"--test_file_path {test_file}: holds no usable task, {wanted}")
        job.check_not_all_failed(of=tasks)
        note_shard(job.journal, shard, TaskWithRollouts, left_out=tasks - job.journal.results)
        written = job.journal.finish(count, TaskWithRollouts)
        changed = not_applied(sampling, job.engine.applied(sampling))
        if handover:
            handover.end()

    rows = [
        ("samples", written),
        *([("shard", f"{shard}, of {count} samples")] if shard else []),
        *report.skipped_rows,
        ("rollouts a sample", sampling.n),
        ("rollout mode", rollout_mode),
        *([("said nothing", f"{silent} rollouts")] if silent else []),
        *([("not applied", changed)] if changed else []),
    ]
    job.print_summary(f"rolled out: {rollout_file}", rows, role="policy")
    return job.exit_code(failed=job.usage.failed.total(), of=tasks, report=report)


def _left(tasks: int, rolled_out: int) -> Left:
    """What a run that stopped at its budget has still to do."""
    return Left(f"{tasks - rolled_out:,} of {tasks:,} samples", tasks - rolled_out)


def of_mode(settings: JobSettings, rollout_mode: RolloutMode, train_mode: TrainMode, domain: Domain) -> JobSettings:
    """The settings of a policy that answers itself or as the model of the agent."""
    if rollout_mode == "direct":
        return settings
    meter = settings.meter and settings.meter.with_prompt(rollout_prompt(train_mode, domain))
    return replace(settings, make_engine=lambda: ReactEngine(settings.make_engine(), train_mode, domain), meter=meter)


def conversation(
    messages: list[Message], train_mode: TrainMode, rollout_mode: RolloutMode, domain: Domain
) -> list[dict[str, str]]:
    """What the engine is asked; an agent brings the system prompt itself."""
    chat = rollout_messages(messages, train_mode, domain)
    return chat[1:] if rollout_mode == "react" else chat
