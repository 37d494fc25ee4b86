"""Step 3: rolls a policy out on the test set, grades every rollout and averages (spec section 8)."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from tuner.learn_to_ask.cli import EXIT_DONE, EXIT_FAILURES, check_output, print_summary, progress
from tuner.learn_to_ask.data_prepare.overlap import Handover, Item
from tuner.learn_to_ask.data_prepare.resumable import resumable
from tuner.learn_to_ask.data_prepare.rollout_files import read_matching
from tuner.learn_to_ask.engines.base import Engine, Request, Sampling
from tuner.learn_to_ask.engines.retrying import Prices, Usage, ask
from tuner.learn_to_ask.errors import UserError
from tuner.learn_to_ask.grading import parse_grade
from tuner.learn_to_ask.journal import Journal, file_digest, text_digest
from tuner.learn_to_ask.jsonl import ReadReport, read_jsonl, require_input
from tuner.learn_to_ask.metrics import METRICS, compute_metrics, scored_rollouts
from tuner.learn_to_ask.prompt import grading_messages, reward_prompt_med, rollout_messages, rollout_prompt
from tuner.learn_to_ask.records import Grade, GradedTask, Message, Regrade, Task, TaskWithRollouts
from tuner.learn_to_ask.responses import strip_reasoning
from tuner.learn_to_ask.reward import Scores, TrainMode, grade, needs_grader

ROLLOUT_SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=512, repetition_penalty=1.2)
GRADER_SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_tokens=1024)

RolloutMode = Literal["direct", "react"]
ROLLOUT_MODES: tuple[RolloutMode, ...] = get_args(RolloutMode)


def roll_out(
    *,
    test_file: Path,
    rollout_file: Path,
    make_engine: Callable[[], Engine],
    prices: Prices | None,
    sampling: Sampling,
    train_mode: TrainMode,
    rollout_mode: RolloutMode = "direct",
    max_retries: int,
    max_failures: float,
    strict: bool,
    resume: bool,
    overwrite: bool,
    handover: Handover | None = None,
) -> int:
    """Writes `sampling.n` rollouts for every task of the test set.

    Args:
        test_file: Tasks.
        rollout_file: `TaskWithRollouts`, in input order, once all are done; kept if complete on resume.
        make_engine: Loads the policy, called only when there is work for it.
        prices: Of the policy, for the cost in the summary.
        sampling: How to sample.
        train_mode: Which system prompt the policy gets.
        rollout_mode: Whether the policy answers itself or as the model of the agent that is trained.
        max_retries: Fresh tries after an error of the engine; then the task is left out.
        max_failures: Share of tasks left out that is still a success.
        strict: A bad line is an error instead of skipped.
        resume: Continue an unfinished run.
        overwrite: Replace finished output, drop an unfinished run.
        handover: Gets every task with rollouts as soon as it is on the disk, those of an earlier run included.

    Returns:
        The exit code.

    Raises:
        StoppedError: When the grader at the other end of the handover has failed.
    """
    started = time.monotonic()
    require_input(test_file, "--test_file_path")
    if resume and rollout_file.exists():
        print(f"{rollout_file}: already complete")
        return EXIT_DONE
    check_output(rollout_file, "--rollout_file_path", overwrite=overwrite)
    report, usage = ReadReport(), Usage()
    waiting: dict[int, Task] = {}
    count = 0
    total = _count_lines(test_file)
    with resumable(
        rollout_file,
        _with_agent(make_engine, train_mode) if rollout_mode == "react" else make_engine,
        depends_on={
            "input": file_digest(test_file),
            "sampling": str(sampling),
            "prompt": text_digest(rollout_prompt(train_mode)),
            "rollout_mode": rollout_mode,
        },
        resume=resume,
        overwrite=overwrite,
    ) as (engine, journal):

        def requests() -> Iterator[Request]:
            nonlocal count
            for task in read_jsonl(test_file, Task, unique_key="cid", report=report, strict=strict):
                if handover and handover.stopped:
                    return
                index, count = count, count + 1
                if not journal.done(index):
                    waiting[index] = task
                    yield Request(index, _conversation(task.messages, train_mode, rollout_mode))
                elif handover:
                    handover.put(index, TaskWithRollouts.model_validate(journal.record(index)))

        answers = ask(
            engine,
            requests(),
            sampling=sampling,
            parse=lambda texts: [strip_reasoning(text) for text in texts],
            max_tries=1 + max_retries,
            usage=usage,
        )
        for answer in progress(answers, title="rolling out", total=total - journal.resumed, unit="samples"):
            task = waiting.pop(answer.key)
            if answer.value is not None:
                done = TaskWithRollouts(**task.model_dump(), rollouts=answer.value, policy=engine.description)
                journal.append(answer.key, done)
                if handover:
                    handover.put(answer.key, done)
        if handover:
            handover.check()
        if not report.good:
            raise UserError(f"--test_file_path {test_file}: holds no usable task; the lines above say why")
        written = journal.finish(count)
        if handover:
            handover.end()

    print_summary(
        f"rolled out: {rollout_file}",
        [
            ("samples", written),
            *((f"skipped: {reason}", lines) for reason, lines in sorted(report.bad.items())),
            *([("resumed", journal.resumed)] if journal.resumed else []),
            ("rollouts a sample", sampling.n),
            ("rollout mode", rollout_mode),
            *usage.rows(prices),
            *engine.summary(),
            ("policy", engine.description),
        ],
        started=started,
    )
    return EXIT_FAILURES if usage.failed.total() > max_failures * count else EXIT_DONE


def _with_agent(make_engine: Callable[[], Engine], train_mode: TrainMode) -> Callable[[], Engine]:
    """Puts the agent before the engine."""
    from tuner.learn_to_ask.engines.react import ReactEngine

    return lambda: ReactEngine(make_engine(), train_mode)


def _conversation(messages: list[Message], train_mode: TrainMode, rollout_mode: RolloutMode) -> list[dict[str, str]]:
    """What the engine is asked; an agent brings the system prompt itself."""
    conversation = rollout_messages(messages, train_mode)
    return conversation[1:] if rollout_mode == "react" else conversation


def evaluate(
    *,
    test_file: Path,
    rollout_file: Path,
    eval_file: Path,
    make_engine: Callable[[], Engine],
    prices: Prices | None,
    grade_repeat: int = 1,
    max_retries: int,
    max_failures: float,
    resume: bool,
    overwrite: bool,
    handover: Handover | None = None,
    when: str = "after the rollouts",
) -> int:
    """Grades every rollout, writes the evaluation file and prints the metrics.

    Only rollouts that ask where asking is right cost a call of the grader.

    Args:
        test_file: Tasks that the rollouts are of; their order is that of the evaluation file.
        rollout_file: `TaskWithRollouts` of `roll_out`.
        eval_file: `GradedTask`, in input order, once all are done.
        make_engine: Loads the grader, called only when there is work for it.
        prices: Of the grader, for the cost in the summary.
        grade_repeat: How often the grader is asked about each rollout, independently. The first answer is the grade,
            the others are its `regrades`.
        max_retries: Fresh tries after a reply without scores; then the rollout is left out of the averages.
        max_failures: Share of the gradings left out that is still a success.
        resume: Continue an unfinished run.
        overwrite: Replace finished output, drop an unfinished run.
        handover: Where the rollouts come from when they are not all there yet, instead of the rollout file.
        when: What the summary says of that.

    Returns:
        The exit code.

    Raises:
        StoppedError: When the policy at the other end of the handover has failed.
        UserError: When the rollouts are not those of the test set, or an unfinished run graded others.
    """
    started = time.monotonic()
    require_input(test_file, "--test_file_path")
    if not handover:
        require_input(rollout_file, "--rollout_file_path")
    if resume and eval_file.exists():
        print(f"{eval_file}: already complete")
        print_metrics(eval_file)
        return EXIT_DONE
    check_output(eval_file, "--eval_file_path", overwrite=overwrite)
    usage = Usage()
    waiting: dict[int, _Grading] = {}
    keys: dict[int, tuple[int, int, int]] = {}
    last = samples = asked = rollouts = 0
    ticks = progress(itertools.count(), title="grading", total=_count_lines(test_file), unit="samples")
    with resumable(
        eval_file,
        make_engine,
        depends_on={
            "input": file_digest(test_file),
            "sampling": str(GRADER_SAMPLING),
            "prompt": text_digest(reward_prompt_med),
            "grade_repeat": str(grade_repeat),
        },
        resume=resume,
        overwrite=overwrite,
    ) as (engine, journal):

        def requests(items: Iterable[Item]) -> Iterator[Request]:
            nonlocal last, samples, asked, rollouts
            for index, task in items:
                next(ticks)
                last, samples, rollouts = max(last, index), samples + 1, rollouts + len(task.rollouts)
                if journal.done(index):
                    _check_graded(journal, index, task)
                    continue
                grading = _Grading(task, grade_repeat)
                if grading.finished:
                    journal.append(index, grading.graded_task(engine.description))
                    continue
                waiting[index] = grading
                for position, round_ in sorted(grading.open):
                    keys[asked] = (index, position, round_)
                    yield Request(asked, grading_messages(task.messages, task.rollouts[position], task.info_truth))
                    asked += 1

        for items in handover.batches() if handover else [_items(test_file, rollout_file)]:
            answers = ask(
                engine,
                requests(items),
                sampling=GRADER_SAMPLING,
                parse=lambda texts: parse_grade(texts[0]),
                max_tries=1 + max_retries,
                usage=usage,
            )
            for answer in answers:
                index, position, round_ = keys.pop(answer.key)
                grading = waiting[index]
                grading.set_scores(position, round_, answer.value)
                if grading.finished:
                    done = waiting.pop(index).graded_task(engine.description)
                    journal.append(index, done, failed=grading.failed)
        ticks.close()
        if handover:
            handover.check()
        journal.finish(last + 1)

    print_summary(
        f"graded: {eval_file}",
        [
            ("samples", samples),
            *([("resumed", journal.resumed)] if journal.resumed else []),
            *([("grades a rollout", grade_repeat)] if grade_repeat > 1 else []),
            *usage.rows(prices),
            *engine.summary(),
            ("grader", engine.description),
            ("graded", when),
        ],
        started=started,
    )
    print_metrics(eval_file)
    return EXIT_FAILURES if journal.failed > max_failures * rollouts * grade_repeat else EXIT_DONE


def _items(test_file: Path, rollout_file: Path) -> Iterator[Item]:
    """The rollouts of a finished file with their index in the test set."""
    return ((index, task) for index, _, task in read_matching(test_file, rollout_file, TaskWithRollouts))


def _check_graded(journal: Journal, index: int, task: TaskWithRollouts) -> None:
    """Compares rollouts with those that an unfinished run has graded.

    Raises:
        UserError: When they differ.
    """
    if journal.record(index)["rollouts"] != task.rollouts:
        raise UserError(
            f"{journal.path}: cannot resume, it holds grades of other rollouts of cid {task.cid!r}; pass --overwrite "
            "to start again"
        )


class _Grading:
    """A task on its way to its grades.

    Attributes:
        open: (position, round) of every grading that is still to come, both from 0.
    """

    def __init__(self, task: TaskWithRollouts, repeat: int) -> None:
        self._task = task
        self._repeat = repeat
        self._scores: dict[tuple[int, int], Scores | None] = {}
        self._asked = [
            position for position, rollout in enumerate(task.rollouts) if needs_grader(rollout, task.decision_truth)
        ]
        self.open = set(itertools.product(self._asked, range(repeat)))

    @property
    def finished(self) -> bool:
        """Whether no grader has to be asked any more."""
        return not self.open

    @property
    def failed(self) -> int:
        """How often the grader gave no readable scores."""
        return sum(scores is None for scores in self._scores.values())

    def set_scores(self, position: int, round_: int, scores: Scores | None) -> None:
        """Takes the grader's scores of one rollout; `None` when grading failed."""
        self.open.remove((position, round_))
        self._scores[position, round_] = scores

    def graded_task(self, grader: str) -> GradedTask:
        """The line of the evaluation file, with the grader's name."""
        grades: list[Grade] = [
            grade(rollout, self._task.decision_truth, self._scores.get((position, 0)))
            for position, rollout in enumerate(self._task.rollouts)
        ]
        return GradedTask(**self._task.model_dump(), grades=grades, grader=grader, regrades=self._regrades())

    def _regrades(self) -> list[list[Regrade]]:
        """What the grader said beyond the first time, for each rollout."""
        if self._repeat == 1:
            return []
        return [
            [_regrade(self._scores[position, round_]) for round_ in range(1, self._repeat)]
            if position in self._asked
            else []
            for position in range(len(self._task.rollouts))
        ]


def _regrade(scores: Scores | None) -> Regrade:
    """Scores as the evaluation file holds them; open ones after a failure."""
    return Regrade(**asdict(scores)) if scores else Regrade(format_score=None, content_score=None)


def print_metrics(eval_file: Path) -> None:
    """Prints the metrics of an evaluation file as the published table lists them."""
    records = read_jsonl(eval_file, GradedTask, unique_key="cid", report=ReadReport(), strict=True)
    metrics = compute_metrics(rollout for record in records for rollout in scored_rollouts(record))
    width = max(len(metric.title) for metric in METRICS.values())
    for key, metric in METRICS.items():
        value = metrics[key]
        print(f"  {metric.title:<{width}}  {'n/a' if value is None else f'{value:.3f}'}")


def _count_lines(path: Path) -> int:
    """Number of lines, for progress bars."""
    with path.open("rb") as file:
        return sum(1 for _ in file)
